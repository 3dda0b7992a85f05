"""The command line with other constants, so that a test need not wait for those that are promised.

python -m test.support.impatient '{"instaslice.serve.worker": {"ARRIVAL": 0.5}}' serve ...
"""

import importlib
import json
import sys

from instaslice.cli.main import main

if __name__ == "__main__":
    for module, constants in json.loads(sys.argv[1]).items():
        for name, value in constants.items():
            found = importlib.import_module(module)
            assert hasattr(found, name), f"{module} has no {name}"
            setattr(found, name, value)
    sys.exit(main(sys.argv[2:]))
