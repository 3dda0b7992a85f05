"""`make deploy` and related targets, without a cluster; test/e2e tests the rest."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from instaslice.webhook_configuration import ALL, BESIDE, webhook_configuration
from test.support.command import find_tool
from test.support.manifests import Manifests, at, by_kind_and_name, documents
from test.support.process import PATIENCE, Process, until

ROOT = Path(__file__).parent.parent
IMAGE = "registry.example.com:5000/team/instaslice@sha256:" + 64 * "0"
DEPLOYMENT = ("Deployment", "instaslice")
WEBHOOK = ("MutatingWebhookConfiguration", "instaslice")

Make = Callable[..., "subprocess.CompletedProcess[str]"]
Build = Callable[..., Manifests]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the files that these targets read."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("Makefile", "config", "hack", "instaslice", ".gitignore"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    for path in (folder / "config/components/own-certificates").glob("*.[ck]*"):
        path.unlink()
    return folder


@pytest.fixture
def checkout(copy: Path) -> Path:
    """The copy, without earlier output."""
    shutil.rmtree(copy / "dist", ignore_errors=True)
    return copy


@pytest.fixture
def make(checkout: Path) -> Make:
    """A function that runs make there, with no settings and no cluster."""

    def make(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [
                "make",
                "--no-print-directory",
                *arguments,
                *(f"{k}={v}" for k, v in variables.items()),
            ],
            cwd=checkout,
            env={"PATH": os.environ["PATH"], "KUBECONFIG": str(checkout / "none")},
            capture_output=True,
            text=True,
        )

    return make


@pytest.fixture
def build(make: Make, checkout: Path) -> Build:
    """A function that returns the output of `make build-installer`."""

    def build(**variables: str) -> Manifests:
        done = make("build-installer", IMG=IMAGE, **variables)
        assert done.returncode == 0, done.stderr
        return installed(checkout)

    return build


def script(path: Path, text: str) -> str:
    """Write a program, and return its path."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture(autouse=True)
def kubectl() -> str:
    return find_tool("kubectl")


def said(done: "subprocess.CompletedProcess[str]") -> str:
    """The one-line error of a failed run, without what make adds."""
    assert done.returncode == 2, done.stdout
    lines = [line for line in done.stderr.splitlines() if not line.startswith("make: ***")]
    assert len(lines) == 1, lines
    return lines[0]


def installed(checkout: Path) -> Manifests:
    return by_kind_and_name(documents((checkout / "dist/install.yaml").read_text()))


@pytest.mark.parametrize("target", ["build-installer", "deploy", "docker-push", "docker-buildx"])
def test_a_missing_image_is_an_error(target: str, make: Make) -> None:
    """No public image exists."""
    assert said(make(target)).startswith("make: IMG is not set: ")


#: Wrong variables, and the beginning of the error.
REFUSED = {
    "COMPONENTS=prometheus": 'COMPONENTS="prometheus" has 0 sources of certificates',
    "COMPONENTS=cert-manager own-certificates": 'COMPONENTS="cert-manager own-certificates" has 2 ',
    "COMPONENTS=own-certificates": "config/components/own-certificates has no tls.crt; `make ",
    "COMPONENTS=cert-manager promethius": "there is no component promethius; there are: beside-the",
    "COMPONENTS=cert-manager kubernetes-1.27 beside-the-scheduler": "kubernetes-1.27 and ",
    "COMPONENTS=cert-manager policies;KUBERNETES=1.29": "policies is for",
    "COMPONENTS=cert-manager beside-the-scheduler;KUBERNETES=1.35": "beside-the-s",
    "KUBERNETES=new": 'KUBERNETES="new" is not a version, such as 1.36',
    "RESOURCES=nvidia.com/gpu": "RESOURCES: nvidia.com/gpu is not NAME=DEVICECLASS",
    "KUBECTL=no-kubectl": "no-kubectl is not on PATH",
}


@pytest.mark.parametrize("variables", REFUSED)
def test_wrong_variables_give_a_one_line_error(variables: str, make: Make) -> None:
    refused = said(make("build-installer", f"IMG={IMAGE}", *variables.split(";")))
    assert refused.startswith(f"make: {REFUSED[variables]}")


@pytest.mark.parametrize("target", ["deploy", "undeploy"])
def test_deploy_and_undeploy_give_one_line_errors(target: str, make: Make) -> None:
    assert said(make(target, IMG=IMAGE)).startswith("make: kubectl reaches no cluster: ")
    assert said(make(target, IMG=IMAGE, KUBECTL="no-kubectl")) == "make: no-kubectl is not on PATH"
    if target == "deploy":
        refused = said(make(target, IMG=IMAGE, COMPONENTS="prometheus"))
        assert refused.startswith('make: COMPONENTS="prometheus" has 0 sources')


def test_the_installer_has_the_image_and_only_dist_is_written(build: Build, checkout: Path) -> None:
    before = sorted(checkout.rglob("*"))
    manifests = build(COMPONENTS="cert-manager no-api")
    assert at(manifests[DEPLOYMENT], "CONTAINER.image") == IMAGE
    assert ("Certificate", "instaslice") in manifests
    assert ("ClusterRole", "instaslice") not in manifests
    after = [path for path in sorted(checkout.rglob("*")) if "dist" not in path.parts]
    assert after == before


def test_another_namespace_is_used_everywhere_but_not_created(build: Build, checkout: Path) -> None:
    usual, elsewhere = build(), build(NAMESPACE="gpu")
    assert "instaslice-system" not in (checkout / "dist/install.yaml").read_text()
    # The namespace may have existed before, so InstaSlice must not label it.
    assert set(usual) - set(elsewhere) == {("Namespace", "instaslice-system")}
    assert at(elsewhere[WEBHOOK], "webhooks.0.clientConfig.service.namespace") == "gpu"


@pytest.mark.parametrize(
    ("component", "mode"), [("prometheus", ALL), ("beside-the-scheduler", BESIDE)]
)
def test_a_mapping_reaches_the_server_and_the_webhook(
    component: str, mode: str, build: Build, checkout: Path
) -> None:
    mapping = "nvidia.com/gpu=gpu.nvidia.com amd.com/gpu=gpu.amd.com"
    manifests = build(COMPONENTS=f"cert-manager {component}", RESOURCES=mapping)
    names = ["nvidia.com/gpu", "amd.com/gpu"]
    assert manifests[WEBHOOK]["webhooks"] == webhook_configuration(mode, names)["webhooks"]
    setting = {"name": "INSTASLICE_RESOURCES", "value": mapping.replace(" ", ",")}
    assert setting in at(manifests[DEPLOYMENT], "CONTAINER.env")
    text = (checkout / "dist/install.yaml").read_text()
    mapped = "dyn({'nvidia.com/gpu':'gpu.nvidia.com', 'amd.com/gpu':'gpu.amd.com'})"
    assert text.count(mapped) == 2


@pytest.mark.parametrize(
    ("variables", "policies", "failure_policy"),
    [
        ({"KUBERNETES": "1.30"}, 2, "Fail"),
        ({"KUBERNETES": "v1.36.2-gke.1", "POLICIES": "no"}, 0, "Fail"),
        ({"KUBERNETES": "1.29"}, 0, "Fail"),
        ({"KUBERNETES": "1.28", "COMPONENTS": "cert-manager kubernetes-1.27"}, 0, "Ignore"),
    ],
    ids=str,
)
def test_the_components_depend_on_the_version(
    variables: dict[str, str], policies: int, failure_policy: str, build: Build, checkout: Path
) -> None:
    manifests = build(NAMESPACE="gpu", **variables)
    assert [kind for kind, _ in manifests].count("ValidatingAdmissionPolicy") == policies
    assert at(manifests[WEBHOOK], "webhooks.0.failurePolicy") == failure_policy
    text = (checkout / "dist/install.yaml").read_text()
    assert text.count("system:serviceaccount:gpu:instaslice") == bool(policies)


def test_deploy_asks_the_server_for_its_version(make: Make, checkout: Path, tmp_path: Path) -> None:
    answer = '{"major": "1", "minor": "27+", "gitVersion": "v1.27.3-eks"}'
    kubectl = script(
        tmp_path / "kubectl",
        f'case $1 in kustomize) exec {find_tool("kubectl")} "$@" ;;\n'
        f"get) echo '{answer}' ;; *) exit 1 ;; esac",
    )
    done = make("deploy", IMG=IMAGE, KUBECTL=kubectl)
    assert "with cert-manager kubernetes-1.27, in namespace instaslice-system" in done.stdout
    assert at(installed(checkout)[WEBHOOK], "webhooks.0.failurePolicy") == "Ignore"


def test_a_label_has_the_set_of_components(build: Build) -> None:
    """The next deployment compares it; the order of components does not matter."""

    def label(components: str) -> str:
        manifests = build(COMPONENTS=components).values()
        (found,) = {m["metadata"]["labels"]["instaslice.io/components"] for m in manifests}
        return str(found)

    assert label("cert-manager opt-in") == label("opt-in cert-manager") != label("cert-manager")


def test_a_failed_or_interrupted_build_removes_the_old_installer(
    make: Make, checkout: Path, tmp_path: Path
) -> None:
    older = checkout / "dist/install.yaml"
    for variables in ({"KUBECTL": "false"}, {"IMG": ""}, {"COMPONENTS": "prometheus"}):
        older.parent.mkdir(exist_ok=True)
        older.write_text("older")
        assert make("build-installer", **{"IMG": IMAGE, **variables}).returncode != 0
        assert not older.exists(), variables
    older.write_text("older")
    slow = script(tmp_path / "kubectl", f"touch {tmp_path}/started\nexec sleep 60")
    words = (f"--directory={checkout}", "build-installer", f"IMG={IMAGE}", f"KUBECTL={slow}")
    process = Process(["make", *words], tmp_path / "log")
    try:
        until((tmp_path / "started").exists, "kubectl runs", process.check)
        os.killpg(process.pid, signal.SIGINT)  # like Ctrl-C
        process.wait(PATIENCE)
    finally:
        process.kill()
    assert not older.exists()


def test_a_missing_buildx_gives_a_one_line_error(make: Make, tmp_path: Path) -> None:
    docker = script(tmp_path / "docker", "echo \"docker: 'buildx' is not a command.\" >&2; exit 1")
    path = f"{Path(docker).parent}:{os.environ['PATH']}"
    refused = said(make("docker-buildx", f"PATH={path}", IMG=IMAGE))
    assert refused.startswith("make: docker has no plugin buildx ")
