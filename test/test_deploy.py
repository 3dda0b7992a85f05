"""`make deploy` and its kind, as far as they go without a cluster; test/e2e has the rest."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from instaslice.webhook_configuration import ALL, BESIDE, webhook_configuration
from test.support.command import find_tool
from test.support.manifests import Manifests, by_kind_and_name
from test.support.process import PATIENCE, Process, until

ROOT = Path(__file__).parent.parent
IMAGE = "registry.example.com:5000/team/instaslice@sha256:" + 64 * "0"
WEBHOOK = ("MutatingWebhookConfiguration", "instaslice")

Make = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what these targets read."""
    for name in ("Makefile", "config", "hack", "instaslice", ".gitignore"):
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, tmp_path / name)
    for path in (tmp_path / "config/components/own-certificates").glob("*.[ck]*"):
        path.unlink()
    return tmp_path


@pytest.fixture
def make(checkout: Path) -> Make:
    """Runs make there, with nobody's settings and no cluster."""

    def make(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        ours = (
            "IMG",
            "COMPONENTS",
            "RESOURCES",
            "NAMESPACE",
            "KUBECTL",
            "KUBECONFIG",
            "MAKEFLAGS",
            "MAKELEVEL",
        )
        environment = {key: value for key, value in os.environ.items() if key not in ours}
        environment |= {"KUBECONFIG": str(checkout / "none")}
        words = [*arguments, *(f"{name}={value}" for name, value in variables.items())]
        return subprocess.run(
            ["make", "--no-print-directory", *words],
            cwd=checkout,
            env=environment,
            capture_output=True,
            text=True,
        )

    return make


@pytest.fixture(autouse=True)
def kubectl() -> str:
    return find_tool("kubectl")


def said(done: "subprocess.CompletedProcess[str]") -> str:
    """The one line that a refusal is, without what make adds to it."""
    assert done.returncode == 2, done.stdout
    lines = [line for line in done.stderr.splitlines() if not line.startswith("make: ***")]
    assert len(lines) == 1, lines
    return lines[0]


def installed(checkout: Path) -> Manifests:
    return by_kind_and_name(yaml.safe_load_all((checkout / "dist/install.yaml").read_text()))


@pytest.mark.parametrize("target", ["build-installer", "deploy", "docker-push", "docker-buildx"])
def test_without_an_image_nothing_is_done(target: str, make: Make) -> None:
    """There is no image that everybody could pull."""
    assert said(make(target)).startswith("make: IMG is not set: ")


@pytest.mark.parametrize(
    ("components", "message"),
    [
        ("prometheus", 'COMPONENTS="prometheus" has 0 sources of certificates'),
        ("cert-manager own-certificates", "has 2 sources of certificates"),
        ("own-certificates", "has no tls.crt; `make own-certificates` makes one for a try"),
        ("cert-manager promethius", "there is no component promethius; there are: beside-the"),
        ("cert-manager kubernetes-1.27 beside-the-scheduler", "do not go together"),
    ],
)
@pytest.mark.parametrize("target", ["build-installer", "deploy"])
def test_components_that_make_no_installation_are_refused(
    target: str, components: str, message: str, make: Make
) -> None:
    assert message in said(make(target, IMG=IMAGE, COMPONENTS=components))


def test_the_installer_has_the_image_and_only_dist_is_written(make: Make, checkout: Path) -> None:
    before = sorted(checkout.rglob("*"))
    done = make("build-installer", IMG=IMAGE, COMPONENTS="cert-manager no-api")
    assert done.returncode == 0, done.stderr
    manifests = installed(checkout)
    (container,) = manifests["Deployment", "instaslice"]["spec"]["template"]["spec"]["containers"]
    assert container["image"] == IMAGE
    assert ("Certificate", "instaslice") in manifests
    assert ("ClusterRole", "instaslice") not in manifests
    after = [path for path in sorted(checkout.rglob("*")) if "dist" not in path.parts]
    assert after == before


def test_another_namespace_is_everywhere_and_stays_the_users(make: Make, checkout: Path) -> None:
    make("build-installer", IMG=IMAGE)
    usual = installed(checkout)
    done = make("build-installer", IMG=IMAGE, NAMESPACE="gpu")
    assert done.returncode == 0, done.stderr
    assert "instaslice-system" not in (checkout / "dist/install.yaml").read_text()
    # The namespace may have been there before, for others: it is not ours to label.
    assert set(usual) - set(installed(checkout)) == {("Namespace", "instaslice-system")}
    service = installed(checkout)[WEBHOOK]["webhooks"][0]["clientConfig"]["service"]
    assert service["namespace"] == "gpu"


@pytest.mark.parametrize(
    ("component", "mode"), [("prometheus", ALL), ("beside-the-scheduler", BESIDE)]
)
def test_a_mapping_is_the_servers_and_the_webhooks(
    component: str, mode: str, make: Make, checkout: Path
) -> None:
    mapping = "nvidia.com/gpu=gpu.nvidia.com amd.com/gpu=gpu.amd.com"
    components = f"cert-manager {component}"
    done = make("build-installer", IMG=IMAGE, COMPONENTS=components, RESOURCES=mapping)
    assert done.returncode == 0, done.stderr
    manifests = installed(checkout)
    names = ["nvidia.com/gpu", "amd.com/gpu"]
    assert manifests[WEBHOOK]["webhooks"] == webhook_configuration(mode, names)["webhooks"]
    (container,) = manifests["Deployment", "instaslice"]["spec"]["template"]["spec"]["containers"]
    setting = {"name": "INSTASLICE_RESOURCES", "value": mapping.replace(" ", ",")}
    assert setting in container["env"]
    text = (checkout / "dist/install.yaml").read_text()
    mapped = "dyn({'nvidia.com/gpu':'gpu.nvidia.com', 'amd.com/gpu':'gpu.amd.com'})"
    assert text.count(mapped) == 2


@pytest.mark.parametrize(
    ("variables", "policies", "failure_policy"),
    [
        ({}, 2, "Fail"),
        ({"KUBERNETES": "1.30"}, 2, "Fail"),
        ({"KUBERNETES": "v1.36.2-gke.1", "POLICIES": "no"}, 0, "Fail"),
        ({"KUBERNETES": "1.29"}, 0, "Fail"),
        ({"KUBERNETES": "1.27"}, 0, "Ignore"),
        ({"KUBERNETES": "1.28", "COMPONENTS": "cert-manager kubernetes-1.27"}, 0, "Ignore"),
    ],
    ids=str,
)
def test_the_components_are_those_of_the_version(
    variables: dict[str, str], policies: int, failure_policy: str, make: Make, checkout: Path
) -> None:
    done = make("build-installer", IMG=IMAGE, NAMESPACE="gpu", **variables)
    assert done.returncode == 0, done.stderr
    manifests = installed(checkout)
    assert [kind for kind, _ in manifests].count("ValidatingAdmissionPolicy") == policies
    assert manifests[WEBHOOK]["webhooks"][0]["failurePolicy"] == failure_policy
    text = (checkout / "dist/install.yaml").read_text()
    assert text.count("system:serviceaccount:gpu:instaslice") == bool(policies)


def test_deploy_asks_the_server_for_its_version(make: Make, checkout: Path) -> None:
    kubectl = checkout / "kubectl"
    answer = '{"major": "1", "minor": "27+", "gitVersion": "v1.27.3-eks"}'
    kubectl.write_text(
        f'#!/bin/sh\ncase $1 in kustomize) exec {find_tool("kubectl")} "$@" ;;\n'
        f"get) echo '{answer}' ;; *) exit 1 ;; esac\n"
    )
    kubectl.chmod(0o755)
    done = make("deploy", IMG=IMAGE, KUBECTL=str(kubectl))
    assert "with cert-manager kubernetes-1.27, in namespace instaslice-system" in done.stdout
    assert installed(checkout)[WEBHOOK]["webhooks"][0]["failurePolicy"] == "Ignore"


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"KUBERNETES": "new"}, 'KUBERNETES="new" is not a version, such as 1.36'),
        ({"COMPONENTS": "cert-manager policies", "KUBERNETES": "1.29"}, "policies is for"),
        ({"COMPONENTS": "cert-manager beside-the-scheduler", "KUBERNETES": "1.35"}, "beside-the-s"),
    ],
)
def test_what_is_not_for_the_version_is_one_line(
    variables: dict[str, str], message: str, make: Make
) -> None:
    assert said(make("build-installer", IMG=IMAGE, **variables)).startswith(f"make: {message}")


def test_a_bad_mapping_is_one_line(make: Make) -> None:
    refused = said(make("build-installer", IMG=IMAGE, RESOURCES="nvidia.com/gpu"))
    assert refused.startswith("make: RESOURCES: nvidia.com/gpu is not NAME=DEVICECLASS")


def test_the_set_of_components_is_a_label(make: Make, checkout: Path) -> None:
    """By which the next deployment finds what it lacks; their order does not matter."""

    def label(components: str) -> str:
        assert make("build-installer", IMG=IMAGE, COMPONENTS=components).returncode == 0
        labels = {
            m["metadata"]["labels"]["instaslice.io/components"]
            for m in installed(checkout).values()
        }
        (found,) = labels
        return str(found)

    assert label("cert-manager opt-in") == label("opt-in cert-manager") != label("cert-manager")


@pytest.mark.parametrize(
    "variables", [{"KUBECTL": "false"}, {"IMG": ""}, {"COMPONENTS": "prometheus"}], ids=str
)
def test_a_build_that_fails_leaves_no_older_installer(
    variables: dict[str, str], make: Make, checkout: Path
) -> None:
    assert make("build-installer", IMG=IMAGE).returncode == 0
    assert make("build-installer", **{"IMG": IMAGE, **variables}).returncode != 0
    assert not (checkout / "dist/install.yaml").exists()


def test_a_build_that_is_interrupted_leaves_no_older_installer(make: Make, checkout: Path) -> None:
    assert make("build-installer", IMG=IMAGE).returncode == 0
    slow = checkout / "kubectl"
    slow.write_text(f"#!/bin/sh\ntouch {checkout}/started\nexec sleep 60\n")
    slow.chmod(0o755)
    command = [
        "make",
        "--directory",
        str(checkout),
        "build-installer",
        f"IMG={IMAGE}",
        f"KUBECTL={slow}",
    ]
    process = Process(command, checkout / "log")
    try:
        until((checkout / "started").exists, "kubectl runs", process.check)
        os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does
        process.wait(PATIENCE)
    finally:
        process.kill()
    assert not (checkout / "dist/install.yaml").exists()


@pytest.mark.parametrize("target", ["deploy", "undeploy"])
def test_without_a_cluster_it_is_one_line(target: str, make: Make) -> None:
    assert said(make(target, IMG=IMAGE)).startswith("make: kubectl reaches no cluster: ")


@pytest.mark.parametrize("target", ["build-installer", "deploy", "undeploy"])
def test_without_kubectl_it_is_one_line(target: str, make: Make) -> None:
    assert said(make(target, IMG=IMAGE, KUBECTL="no-kubectl")) == "make: no-kubectl is not on PATH"


def test_buildx_that_is_not_there_is_one_line(make: Make, checkout: Path) -> None:
    docker = checkout / "bin/docker"
    docker.parent.mkdir()
    docker.write_text("#!/bin/sh\necho \"docker: 'buildx' is not a docker command.\" >&2; exit 1\n")
    docker.chmod(0o755)
    done = make("docker-buildx", f"PATH={docker.parent}:{os.environ['PATH']}", IMG=IMAGE)
    assert said(done).startswith("make: docker has no plugin buildx ")
