"""InstaSlice: pods that ask for MIG slices as extended resources, rewritten to ask through DRA.

Data flows one way, bytes -> review -> pod -> patch -> bytes. `profiles`, `quantity`, `patch`,
`rewrite`, `review` and `resource_api` are pure: no clock, no socket, no file. Everything that does
I/O (`app`, `server`, `cluster`, `provision`, `cli`) is built around them.
"""

__version__ = "0.1.0"

#: A folder in memory, where there is one: the root file system of the pod is read-only.
MEMORY = "/dev/shm"  # noqa: S108 - files are made there by mkstemp and mkdtemp
