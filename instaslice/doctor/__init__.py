"""What `instaslice doctor` reads of a cluster and says of it (extra `cli`)."""
