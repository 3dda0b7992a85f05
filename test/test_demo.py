"""The demo's manifests are valid, and match its READMEs."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from instaslice.profiles import from_attribute
from instaslice.templates import claim_of
from test.support import a100, manifests
from test.support.streams import after

Json = dict[str, Any]

DEMO = Path(__file__).parent.parent / "demo"
WORKLOADS = ("notebook.yaml", "inference.yaml", "two-profiles.yaml")

#: The Kubernetes version of each folder: limits work in any, the newest claims from 1.34 on.
VERSIONS = {
    "mig-manager": ("1.27", "1.37"),
    "instaslice": ("1.27", "1.37"),
    "dra-driver": ("1.34", "1.37"),
    ".": ("1.36", "1.37"),
}


def documents(path: Path) -> list[Json]:
    return manifests.documents(path.read_text())


@pytest.mark.parametrize("folder", VERSIONS)
def test_manifests_are_valid(folder: str) -> None:
    paths = list((DEMO / folder).glob("*.yaml"))
    assert paths
    for path in paths:
        for document in documents(path):
            for version in VERSIONS[folder]:
                kubernetes_validate.validate(document, version, strict=True)


def test_the_gpus_are_what_the_driver_publishes() -> None:
    found = [each["spec"] for each in documents(DEMO / "a100s.yaml")[1:]]
    expected = [each["spec"] for each in a100.resource_slices("instaslice-demo")]
    for spec in expected:
        # No node has these GPUs.
        del spec["nodeName"]
        spec["allNodes"] = True
    assert found == expected


@pytest.mark.parametrize("name", WORKLOADS)
def test_users_of_mig_manager_change_nothing(name: str) -> None:
    assert (DEMO / "instaslice" / name).read_bytes() == (DEMO / "mig-manager" / name).read_bytes()


def nameless(value: Json) -> str:
    """Replace the names of claims by their numbers."""
    text = yaml.safe_dump(value)
    declared = re.findall(r"- name: (\S+)\n +resourceClaimTemplateName:", text)
    for number, name in enumerate(declared):
        text = re.sub(rf"\bname: {name}\b", f"name: {number}", text)
    return text


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_claims_written_by_hand_are_those_that_instaslice_makes(name: str) -> None:
    text = (DEMO / "instaslice" / name).read_text()
    rewritten = list(yaml.safe_load_all(after(text)))
    by_hand = documents(DEMO / "dra-driver" / name)
    assert [nameless(d) for d in rewritten] == [nameless(d) for d in by_hand]


def test_the_templates_written_by_hand_have_instaslices_names() -> None:
    by_hand = documents(DEMO / "dra-driver" / "templates.yaml")
    profiles = filter(None, map(from_attribute, ("1g.5gb", "2g.10gb", "3g.20gb")))
    made = [claim_of(profile).template for profile in profiles]
    assert [manifest["metadata"]["name"] for manifest in by_hand] == made


def test_mig_managers_config_has_the_profiles_of_the_workloads() -> None:
    (config,) = documents(DEMO / "mig-manager" / "mig-config.yaml")
    (geometry,) = yaml.safe_load(config["data"]["config.yaml"])["mig-configs"].values()
    cut = {profile for gpu in geometry for profile in gpu["mig-devices"]}
    text = "".join((DEMO / "mig-manager" / name).read_text() for name in WORKLOADS)
    assert cut == set(re.findall(r"nvidia.com/mig-(\S+):", text))


def test_the_recorded_run_matches_the_script() -> None:
    said = re.findall(r'^ *say "(.+)"$', (DEMO / "run.sh").read_text(), re.MULTILINE)
    recorded = re.findall(r"^# (.+)$", (DEMO / "README.md").read_text(), re.MULTILINE)
    assert len(said) == 8
    steps = [*said[1:], said[0]]  # the cleaning up, at the end, is a function at the top
    assert [line for line in recorded if line in steps] == steps


def test_a_missing_kubectl_gives_a_one_line_error() -> None:
    environment = {**os.environ, "KUBECTL": "no-such-kubectl"}
    done = subprocess.run(
        ["sh", DEMO / "run.sh"], env=environment, capture_output=True, text=True, timeout=30
    )
    line = "run.sh: there is no kubectl on PATH; set KUBECTL=\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", line)
