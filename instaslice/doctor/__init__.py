"""The readings and reports of `instaslice doctor` and `instaslice plan` (extra `cli`).

`reading` takes a snapshot of a cluster. The rest is pure: `checks` examines the cluster, `explain`
one pod, and `plan` a migration.
"""
