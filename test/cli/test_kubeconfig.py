"""Which context a kubeconfig means, as kubectl takes it, and one line about a bad one."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from instaslice.cli import kube
from instaslice.cli.kube import Client, KubeconfigError

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


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where nothing is but what a test writes."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def write(folder: Path, name: str, content: Json) -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(content))
    return path


def test_contexts_and_files(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = config()
    both["contexts"].append({"name": "b", "context": {"cluster": "c", "namespace": "x"}})
    usual = write(home, ".kube/config", both)
    assert Client().namespace == "default"
    assert Client(context="b").namespace == "x"
    first = write(home, "a", {**config("a"), "clusters": [], "users": []})
    second = write(home, "b", config("b", namespace="second"))
    monkeypatch.setenv("KUBECONFIG", f"{first}:{home / 'none'}:{second}:{usual}")
    assert Client().namespace == "default", "the first current-context"
    assert Client(context="b").namespace == "second", "what is named first wins"
    assert Client(second).namespace == "second", "--kubeconfig beats $KUBECONFIG"


def test_a_pod_has_its_service_account(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KubeconfigError, match=r"~/[.]kube/config does not exist; name a file by"):
        Client()
    (home / "namespace").write_text("gpu")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setattr(kube, "SERVICE_ACCOUNT", home)
    with pytest.raises(KubeconfigError, match="--context x: a pod's service account has no"):
        Client(context="x")


#: What is in the file, and what is said of it after its name.
BAD: dict[str, tuple[str | bytes, str]] = {
    "a list": ("[]", "not a kubeconfig"),
    "a word": ("hello", "not a kubeconfig"),
    "not YAML": ("a: b\nc: [", "not YAML: line 2: "),
    "bytes": (b"\xff\xfe\x00", "not a kubeconfig|not YAML"),
    "nothing": ("", "is empty"),
    "no current context": (json.dumps({**config(), "current-context": None}), "--context NAME"),
    "a context that is gone": (json.dumps({**config(), "current-context": "gone"}), "name gone"),
    "no cluster": (json.dumps({**config(), "clusters": []}), "name c in"),
    "clusters that are none": (json.dumps({**config(), "clusters": "c"}), "clusters list"),
    "no scheme": (json.dumps(config(cluster={"server": "10.0.0.1:6443"})), "is not a URL, such as"),
    "no CA": (json.dumps(config(cluster={"certificate-authority": "x"})), "x"),
    "no login program": (json.dumps(config(user={"exec": {"command": "no-such-login"}})), "exec"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_one_line_with_the_file(case: str, home: Path) -> None:
    content, message = BAD[case]
    path = home / "config"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(KubeconfigError, match=message) as caught:
        Client(path)
    assert str(home) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path, message in ((home / "none", "No such file or directory"), (home, "Is a directory")):
        with pytest.raises(KubeconfigError, match=f"^{path}: {message}"):
            Client(path)
        monkeypatch.setenv("KUBECONFIG", str(path))
        with pytest.raises(KubeconfigError, match=f"^{path}: {message}"):
            Client()
