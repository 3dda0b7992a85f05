"""The command line with other limits, so that tests need not wait for the real ones.

python -m test.support.impatient '{"arrival": 0.5}' serve ...
"""

import json
import sys
from functools import partial

from instaslice.cli.main import main
from instaslice.serve import server
from instaslice.serve.limits import Limits

if __name__ == "__main__":
    limits = Limits(**json.loads(sys.argv[1]))
    setattr(server, "serve", partial(server.serve, limits=limits))  # noqa: B010
    sys.exit(main(sys.argv[2:]))
