"""Create a pod with a MIG slice in a namespace, as a dry run; exits with 0 if it was rewritten."""

import os
import sys
from pathlib import Path

from instaslice.cluster.client import in_cluster
from instaslice.cluster.kubeconfig import from_kubeconfig

NAMESPACE, MODE = sys.argv[1:]
#: Beside the scheduler, a plain pod is not sent.
ANNOTATIONS = {"instaslice.io/alternatives": "1g.5gb or 1g.10gb"}
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {
        "generateName": "instaslice-test-",
        "annotations": ANNOTATIONS if MODE == "beside-the-scheduler" else {},
    },
    "spec": {
        "containers": [
            {
                "name": "sample",
                "image": "sample",
                "resources": {"limits": {"nvidia.com/mig-1g.5gb": "1"}},
            }
        ]
    },
}

kubeconfig = os.environ.get("KUBECONFIG")
cluster = from_kubeconfig(Path(kubeconfig)) if kubeconfig else in_cluster(os.environ)
if cluster is None:
    sys.exit("this is no pod of a cluster, and KUBECONFIG names no file")
answer = cluster.call("POST", f"/api/v1/namespaces/{NAMESPACE}/pods?dryRun=All", POD)
if answer.status != 201:
    sys.exit(f"the API server refused the pod: {answer.reason}")
claims = answer.body["spec"].get("resourceClaims")
if not claims:
    hint = f", or namespace {NAMESPACE} is not labelled" if MODE == "opt-in" else ""
    sys.exit(f"the pod would be created as it is: InstaSlice was not called{hint}")
print(f"rewritten: {claims}")
