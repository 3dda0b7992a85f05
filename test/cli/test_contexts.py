"""Which context a kubeconfig means, and what is said of one that means none."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from instaslice.cli.contexts import Context, KubeconfigError, choose

Json = dict[str, Any]


def config(name: str = "here", namespace: str = "", **parts: Any) -> Json:
    """A kubeconfig of one context; parts: of the whole, or `cluster` and `user`."""
    context = {"cluster": "c", "user": "u", **({"namespace": namespace} if namespace else {})}
    cluster = {"server": "https://127.0.0.1:6443", **parts.pop("cluster", {})}
    return {
        "current-context": name,
        "contexts": [{"name": name, "context": context}],
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": parts.pop("user", {"token": "t"})}],
        **parts,
    }


def write(folder: Path, name: str, content: Json) -> Path:
    path = folder / name
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.parametrize("namespace", ["", "ml"])
def test_the_current_context_and_its_namespace(tmp_path: Path, namespace: str) -> None:
    path = write(tmp_path, "config", config(namespace=namespace))
    assert choose(path, None, {}) == Context((path,), "here", namespace or "default")


def test_another_context_by_its_name(tmp_path: Path) -> None:
    both = config()
    both["contexts"].append(
        {"name": "there", "context": {"cluster": "c", "user": "u", "namespace": "x"}}
    )
    path = write(tmp_path, "config", both)
    assert choose(path, "there", {}).namespace == "x"


def test_files_are_merged_and_the_first_wins(tmp_path: Path) -> None:
    first = write(tmp_path, "a", {**config("a"), "clusters": [], "users": []})
    second = write(tmp_path, "b", config("b", namespace="second"))
    environment = {"KUBECONFIG": f"{first}:{tmp_path / 'none'}:{second}"}
    assert choose(None, None, environment) == Context((first, second), "a", "default")
    assert choose(None, "b", environment).namespace == "second"
    assert choose(second, None, environment).name == "b", "--kubeconfig beats $KUBECONFIG"
    again = write(tmp_path, "c", config("b", namespace="third"))
    both = {"KUBECONFIG": f"{second}:{again}"}
    assert choose(None, "b", both).namespace == "second", "what is named first wins"


def test_the_usual_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".kube").mkdir()
    path = write(tmp_path / ".kube", "config", config())
    assert choose(None, None, {}).files == (path,)


def test_a_pod_has_its_service_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "namespace").write_text("gpu")
    inside = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
    assert choose(None, None, inside, tmp_path) == Context((), "", "gpu")
    with pytest.raises(KubeconfigError, match="--context x: a pod's service account has no"):
        choose(None, "x", inside, tmp_path)


def test_no_kubeconfig_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(KubeconfigError) as caught:
        choose(None, None, {}, tmp_path)
    assert str(caught.value) == (
        "no kubeconfig: ~/.kube/config does not exist; name one by --kubeconfig or $KUBECONFIG"
    )


#: What is in the file, and what is said of it after its name.
BAD: dict[str, tuple[str | bytes, str]] = {
    "nothing": ("", "it is empty"),
    "a list": ("[]", "not a kubeconfig: it is a list"),
    "a word": ("hello", "not a kubeconfig: it is a str"),
    "not YAML": (
        "a: b\nc: [",
        "not YAML: line 2: expected the node content, but found '<stream end>'",
    ),
    "bytes": (b"\xff\xfe\x00", "not a kubeconfig: it is not text"),
    "no current context": (
        json.dumps({**config(), "current-context": None}),
        "it has no current-context; give --context; there is here",
    ),
    "nothing in it": ("apiVersion: v1", "it has no current-context; give --context"),
    "a context that is gone": (
        json.dumps({**config(), "current-context": "gone"}),
        "it has no context 'gone'; there is here",
    ),
    "a cluster that is gone": (
        json.dumps({**config(), "clusters": [{"name": "other", "cluster": {}}]}),
        "context 'here' names the cluster 'c', which is not there; there is other",
    ),
    "a user that is gone": (
        json.dumps({**config(), "users": None}),
        "context 'here' names the user 'u', which is not there",
    ),
    "clusters that are none": (
        json.dumps({**config(), "clusters": "c"}),
        "clusters: must be a list of objects with a name",
    ),
    "a server without a scheme": (
        json.dumps(config(cluster={"server": "10.0.0.1:6443"})),
        "cluster 'c': server: '10.0.0.1:6443' is not a URL, such as https://10.0.0.1:6443",
    ),
    "no server": (
        json.dumps(config(cluster={"server": None})),
        "cluster 'c': server: None is not a URL, such as https://10.0.0.1:6443",
    ),
    "a CA that is not base64": (
        json.dumps(config(cluster={"certificate-authority-data": "#"})),
        "cluster 'c': certificate-authority-data: it is not base64",
    ),
    "a key that is not base64": (
        json.dumps(config(user={"client-key-data": "#"})),
        "user 'u': client-key-data: it is not base64",
    ),
    "a login program that is not there": (
        json.dumps(config(user={"exec": {"command": "no-such-login"}})),
        "user 'u': exec: there is no program 'no-such-login' to log in by",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_said_with_the_file(case: str, tmp_path: Path) -> None:
    content, message = BAD[case]
    path = tmp_path / "config"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(KubeconfigError) as caught:
        choose(path, None, {})
    assert str(caught.value) == f"{path}: {message}"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path, message in ((tmp_path / "none", "No such file or directory"), (tmp_path, "Is a dir")):
        for named, environment in ((path, {}), (None, {"KUBECONFIG": str(path)})):
            with pytest.raises(KubeconfigError, match=f"^{path}: {message}"):
                choose(named, None, environment)


def test_files_that_a_kubeconfig_names(tmp_path: Path) -> None:
    path = write(tmp_path, "config", config(cluster={"certificate-authority": "ca.crt"}))
    message = f"cluster 'c': certificate-authority: there is no file {tmp_path / 'ca.crt'}"
    with pytest.raises(KubeconfigError, match=f": {message}"):
        choose(path, None, {})
    (tmp_path / "ca.crt").write_text("here")
    assert choose(path, None, {}).name == "here"


def test_a_login_program_beside_the_kubeconfig(tmp_path: Path) -> None:
    program = tmp_path / "login"
    program.write_text(f"#!{sys.executable}\n")
    program.chmod(0o755)
    path = write(tmp_path, "config", config(user={"exec": {"command": "./login"}}))
    assert choose(path, None, {}).name == "here"
