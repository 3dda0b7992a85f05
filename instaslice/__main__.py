"""`python -m instaslice`, the same as `instaslice`."""

from instaslice.cli import main

raise SystemExit(main())
