"""`instaslice doctor` and `instaslice plan` (extra `cli`); all but `reading` is pure."""
