"""Wait until a URL answers with 200. The one who started this ends it where that takes too long."""

import ssl
import sys
import time
import urllib.request

URL = sys.argv[1]
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
