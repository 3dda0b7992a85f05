"""Everything is in setup.cfg but the project's address, which `make` knows (PROJECT_URL)."""

import os

from setuptools import setup

address = os.environ.get("PROJECT_URL")
setup(**({"url": address} if address else {}))
