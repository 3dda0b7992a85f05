"""Wait until a Service answers a path with 200; the Job's deadline ends what takes too long."""

import os
import ssl
import sys
import time
import urllib.request

PATH, SERVICE = sys.argv[1:]
# The kubelet says where Services are, so no DNS of the cluster is needed.
NAME = SERVICE.upper().replace("-", "_")
HOST, PORT = (os.environ[f"{NAME}_SERVICE_{part}"] for part in ("HOST", "PORT"))
URL = f"https://{f'[{HOST}]' if ':' in HOST else HOST}:{PORT}{PATH}"
# Whether the certificate is trusted is between it and the API server, which has the CA.
ANY = ssl._create_unverified_context()  # noqa: S323
OPENER = urllib.request.build_opener(
    urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=ANY)
)

while True:
    try:
        with OPENER.open(URL, timeout=5) as answer:
            print(f"{URL}: {answer.status}", flush=True)
            break
    except OSError as error:  # urllib's errors are of its kind
        print(f"{URL}: {error}", flush=True)
        time.sleep(1)
