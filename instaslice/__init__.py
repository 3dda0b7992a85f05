"""InstaSlice rewrites pods that ask for MIG slices as extended resources to ask through DRA.

Data flows one way: bytes -> review -> pod -> patch -> bytes. The modules in this folder are pure:
they use no clock, socket or file. The subfolders do all I/O; one table, in `test/test_layers.py`,
says which folder may import which.
"""

__version__ = "0.1.0"
