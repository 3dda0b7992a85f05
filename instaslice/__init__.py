"""InstaSlice: pods that ask for MIG slices as extended resources, rewritten to ask through DRA.

Data flows one way, bytes -> review -> pod -> patch -> bytes. The modules on top are pure: no clock,
no socket, no file. Everything that does I/O is in a folder of its own around them; who may import
whom is one table, in `test/test_layers.py`.
"""

__version__ = "0.1.0"
