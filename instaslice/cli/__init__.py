"""The command line (extra `cli`): one command a file, and the client behind `Caller`."""
