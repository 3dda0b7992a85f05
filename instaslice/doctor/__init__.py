"""The readings and reports of `instaslice doctor` and `instaslice plan` (extra `cli`).

`reading` takes a snapshot, everything else is pure: `checks` judges a cluster, `explain` a pod, and
`plan` a change-over.
"""
