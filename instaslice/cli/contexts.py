"""Which cluster, user and namespace a kubeconfig means, and what is wrong in it, in one line.

Source: the rules of kubectl (client-go `clientcmd`): the files of $KUBECONFIG are merged, what is
named first wins, and files that do not exist are passed over.
"""

import base64
import binascii
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from instaslice.cluster.client import SERVICE_ACCOUNT

#: Where kubectl looks, too.
DEFAULT: Final = Path("~/.kube/config")

#: What a file of a kubeconfig may refer to, as a path (`key`) or inline in base64 (`key-data`).
_PEM: Final = {
    "clusters": ("certificate-authority",),
    "users": ("client-certificate", "client-key"),
}


class KubeconfigError(Exception):
    """No cluster can be told from a kubeconfig; `str()` of it says what is wrong, and where."""


class Context(NamedTuple):
    """What to hand to a client."""

    files: tuple[Path, ...]  #: none for the cluster whose pod this is
    name: str
    namespace: str


class _Entry(NamedTuple):
    """A named cluster, user or context, and the file that it is from."""

    file: Path
    value: dict[str, Any]


def choose(
    kubeconfig: Path | None,
    context: str | None,
    environment: Mapping[str, str],
    account: Path = SERVICE_ACCOUNT,
) -> Context:
    """The context to use. Raises KubeconfigError.

    kubeconfig: the file that was named; None for $KUBECONFIG, ~/.kube/config or the service
    account of a pod. context: its name; None for the current one.
    """
    files, source = _files(kubeconfig, environment)
    if not files and environment.get("KUBERNETES_SERVICE_HOST") and account.is_dir():
        if context:
            raise KubeconfigError(f"--context {context}: a pod's service account has no contexts")
        namespace = (account / "namespace").read_text().strip()
        return Context((), "", namespace or "default")
    if not files:
        raise KubeconfigError(f"no kubeconfig: {source}; name one by --kubeconfig or $KUBECONFIG")
    configs = [(file, _read(file)) for file in files]
    name = context or next(
        (c["current-context"] for _, c in configs if c.get("current-context")), ""
    )
    where = ":".join(map(str, files))
    contexts = _entries(configs, "contexts", "context")
    if not name:
        raise KubeconfigError(
            f"{where}: it has no current-context; give --context{_one_of(contexts)}"
        )
    if name not in contexts:
        raise KubeconfigError(f"{where}: it has no context {name!r}{_one_of(contexts)}")
    chosen = contexts[name]
    for plural, singular in (("clusters", "cluster"), ("users", "user")):
        wanted = chosen.value.get(singular)
        entries = _entries(configs, plural, singular)
        if wanted not in entries:
            raise KubeconfigError(
                f"{chosen.file}: context {name!r} names the {singular} {wanted!r}, which is not "
                f"there{_one_of(entries)}"
            )
        problem = next(_problems(plural, entries[wanted]), None)
        if problem:
            raise KubeconfigError(f"{entries[wanted].file}: {singular} {wanted!r}: {problem}")
    return Context(tuple(files), str(name), str(chosen.value.get("namespace") or "default"))


def _files(kubeconfig: Path | None, environment: Mapping[str, str]) -> tuple[list[Path], str]:
    """The files to read, and where they were looked for."""
    if kubeconfig:
        return [kubeconfig], "--kubeconfig"
    named = [Path(name).expanduser() for name in _split(environment.get("KUBECONFIG", ""))]
    if named:
        # Passed over like kubectl does; but if none is there, the first is said to be missing.
        there = [path for path in named if path.exists()]
        return there or named[:1], "$KUBECONFIG"
    default = DEFAULT.expanduser()
    if default.exists():
        return [default], str(DEFAULT)
    return [], f"{DEFAULT} does not exist"


def _split(names: str) -> Iterator[str]:
    return filter(None, names.split(os.pathsep))


def _read(path: Path) -> dict[str, Any]:
    import yaml

    try:
        config = yaml.safe_load(path.read_text())
    except OSError as error:
        raise KubeconfigError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise KubeconfigError(f"{path}: not a kubeconfig: it is not text") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise KubeconfigError(f"{path}: not YAML: {line}{' '.join(problem.split())}") from None
    if config is None:
        raise KubeconfigError(f"{path}: it is empty")
    if not isinstance(config, dict):
        raise KubeconfigError(f"{path}: not a kubeconfig: it is a {type(config).__name__}")
    return config


def _entries(
    configs: Sequence[tuple[Path, dict[str, Any]]], plural: str, singular: str
) -> dict[Any, _Entry]:
    """The clusters, users or contexts of all files, by name."""
    found: dict[Any, _Entry] = {}
    for file, config in configs:
        listed = config.get(plural) or []
        for entry in listed if isinstance(listed, list) else [None]:
            value = entry.get(singular) if isinstance(entry, dict) else None
            if not isinstance(entry, dict) or not isinstance(value, dict | None):
                raise KubeconfigError(f"{file}: {plural}: must be a list of objects with a name")
            found.setdefault(str(entry.get("name")), _Entry(file, value or {}))
    return found


def _problems(plural: str, entry: _Entry) -> Iterator[str]:
    """What a client would stumble over."""
    value = entry.value
    if plural == "clusters":
        url = urlsplit(str(value.get("server") or ""))
        if url.scheme not in ("http", "https") or not url.hostname:
            yield f"server: {value.get('server')!r} is not a URL, such as https://10.0.0.1:6443"
    for key in _PEM[plural]:
        inline, name = value.get(f"{key}-data"), value.get(key)
        if inline:
            try:
                base64.b64decode(str(inline), validate=True)
            except binascii.Error:
                yield f"{key}-data: it is not base64"
        elif name and not (path := entry.file.parent / str(name)).is_file():
            yield f"{key}: there is no file {path}"
    login = value.get("exec")
    command = login.get("command") if isinstance(login, dict) else None
    # client-go looks for a path with a separator beside the kubeconfig.
    if command and not shutil.which(_beside(entry.file, str(command))):
        yield f"exec: there is no program {command!r} to log in by"


def _beside(file: Path, command: str) -> str:
    return str(file.parent / command) if os.sep in command else command


def _one_of(entries: Mapping[Any, _Entry]) -> str:
    return f"; there is {', '.join(map(str, entries))}" if entries else ""
