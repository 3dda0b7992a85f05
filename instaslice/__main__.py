"""`python -m instaslice`, the same as `instaslice`."""

from instaslice.cli.main import main

raise SystemExit(main())
