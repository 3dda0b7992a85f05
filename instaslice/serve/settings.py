"""The settings of `instaslice serve`: flags, environment variables, and their values."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from instaslice.annotations import NONE, read_alternatives
from instaslice.cluster.client import Cluster, ClusterError, in_cluster
from instaslice.cluster.kubeconfig import from_kubeconfig
from instaslice.profiles import Resource
from instaslice.resource_api import VERSIONS
from instaslice.resources import MIG, Resources, read_mapping
from instaslice.templates import serves


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of `instaslice serve`."""

    host: str
    port: int
    cert_dir: Path
    resource_api: str  #: a key of resource_api.VERSIONS, or "auto": ask the cluster
    resources: Resources  #: those that are rewritten, and their alternatives
    provision_templates: bool
    cluster: Cluster | None  #: None if neither resource_api nor provision_templates needs it
    log_format: str  #: a key of logs.FORMATS
    log_level: str  #: "info", "warning" or "error": the least severe messages to log
    threads: int
    client_ca: Path | None  #: PEM file of authorities for callers; None lets anyone call
    client_names: frozenset[str]  #: a caller needs one of these; empty: any. Needs client_ca.


#: Every address of this machine, IPv6 and IPv4, as far as it has either.
ANY: Final = "::"

#: The environment variables that gunicorn reads, in part when it is imported. They are removed:
#: SCRIPT_NAME makes each admission an error, and GUNICORN_PID prevents the start.
GUNICORN_VARIABLES: Final = (
    *("FORWARDED_ALLOW_IPS", "GUNICORN_FD", "GUNICORN_PID", "LISTEN_FDS", "LISTEN_PID"),
    *("PORT", "SCRIPT_NAME", "SENDFILE", "WEB_CONCURRENCY"),
)


class SettingsError(Exception):
    """A setting is missing or wrong; `str()` of it says which and why, in one line."""


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"{text!r} is not HOST:PORT")
    return host.removeprefix("[").removesuffix("]") or ANY, int(port)


def _folder(text: str) -> Path:
    if not text:
        raise ValueError(f"{text!r} is not the name of a folder")
    return Path(text)


def _number(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or not 0 < int(text[:4]) <= 512:
        raise ValueError(f"{text!r} is not a number from 1 to 512")
    return int(text)


def _switch(text: str) -> bool:
    words = {"true": True, "1": True, "false": False, "0": False}
    if text.lower() not in words:
        raise ValueError(f"{text!r} is neither true nor false")
    return words[text.lower()]


def _file(text: str) -> Path | None:
    return Path(text) if text else None


def _names(text: str) -> frozenset[str]:
    names = frozenset(filter(None, (name.strip() for name in text.split(","))))
    if text and not names:
        raise ValueError(f"{text!r} has no name in it")
    return names


def _one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"{text!r} is not one of {', '.join(words)}")
        return text

    return parse


def _mapping(text: str) -> Resources:
    return read_mapping(part.strip() for part in text.split(",")) if text else MIG


def _alternatives(text: str) -> dict[Resource, tuple[Resource, ...]]:
    try:
        return read_alternatives(text) if text not in ("", NONE) else {}
    except ValueError as error:
        raise ValueError(f"{text!r}: {error}") from None


class Option(NamedTuple):
    """A setting of `serve`: a flag and an environment variable."""

    flag: str
    default: str | None  #: as on the command line; None: the setting is required
    parse: Callable[[str], Any]  #: raises ValueError, "'...' is not ..."
    metavar: str
    is_list: bool = False  #: the flag may be repeated; the variable, in the plural, has commas
    help: str = ""

    @property
    def is_switch(self) -> bool:
        return self.parse is _switch

    @property
    def key(self) -> str:
        """The key of its value, in most cases a field of Settings."""
        return self.flag.removeprefix("--").replace("-", "_") + ("s" if self.is_list else "")

    @property
    def variable(self) -> str:
        return f"INSTASLICE_{self.key.upper()}"


_HELP: Final = {
    Option("--bind", "[::]:8443", _address, "HOST:PORT"): (
        "the address to listen on; [::] is every address, of IPv4 too"
    ),
    Option("--cert-dir", None, _folder, "DIR"): (
        "holds tls.crt and tls.key, PEM, as cert-manager's Secret mounts them; "
        "a new pair is loaded without a restart"
    ),
    Option("--resource-api", "auto", _one_of("auto", *VERSIONS), "VERSION"): (
        "the version of resource.k8s.io that the cluster serves, "
        f"auto to ask it, or {', '.join(VERSIONS)}"
    ),
    Option("--resource", "", _mapping, "NAME=DEVICECLASS", is_list=True): (
        "an extended resource to rewrite in addition to MIG slices, with the device class to ask "
        "for, nvidia.com/gpu=gpu.nvidia.com, or the MIG profile, nvidia.com/gpu=mig-1g.5gb"
    ),
    Option("--alternatives", "", _alternatives, "CHAINS"): (
        "profiles that may serve instead of the requested one, for pods without an annotation of "
        'their own: "1g.5gb or bigger; 3g.20gb or 3g.40gb"'
    ),
    Option("--provision-templates", "false", _switch, "true|false"): (
        "create the ResourceClaimTemplates and device classes that a pod needs, when it is admitted"
    ),
    Option("--kubeconfig", "", _file, "FILE"): (
        "names the cluster and the credentials; a pod uses its service account"
    ),
    Option("--client-ca", "", _file, "FILE"): (
        "PEM file of the authorities that sign the API server's client certificate; "
        "without it, anyone who reaches the port may call"
    ),
    Option("--client-names", "", _names, "NAME,..."): (
        "accept only certificates with one of these, as common name or DNS name; needs --client-ca"
    ),
    Option("--log-format", "json", _one_of("json", "text"), "FORMAT"): "json, or text for people",
    Option("--log-level", "info", _one_of("info", "warning", "error"), "LEVEL"): (
        "the lowest level that is logged"
    ),
    Option("--threads", "8", _number, "N"): "how many admissions may wait for templates",
}
SERVE: Final = tuple(option._replace(help=text) for option, text in _HELP.items())


def read(
    typed: Mapping[str, str | Sequence[str] | None], environment: Mapping[str, str]
) -> Settings:
    """Read the settings.

    typed: the command line's values by key; the environment gives those that are missing.
    Raises SettingsError.
    """
    values: dict[str, Any] = {}
    for option in SERVE:
        text, origin = typed.get(option.key), option.flag
        if text is None and environment.get(option.variable):
            text, origin = environment[option.variable], option.variable
        if text is None:
            text = option.default
        if text is None:
            raise SettingsError(f"{option.flag} (or {option.variable}) is missing")
        try:
            values[option.key] = option.parse(text if isinstance(text, str) else ",".join(text))
        except ValueError as error:
            raise SettingsError(f"{origin}: {error}") from None
    if values["client_names"] and not values["client_ca"]:
        raise SettingsError("--client-names: needs --client-ca, or no caller shows a certificate")
    mapped, version = values["resources"].mapped, values["resource_api"]
    for resource in mapped.values() if version in VERSIONS else ():
        if not serves(VERSIONS[version], resource):
            what = f"resource.k8s.io/{version} cannot ask for {resource.device_class}"
            raise SettingsError(f"--resource: {resource.name!r} cannot be mapped: {what}")
    values["resources"] = Resources(mapped, values.pop("alternatives"))
    values["cluster"] = _cluster(values, values.pop("kubeconfig"), environment)
    host, port = values.pop("bind")
    return Settings(host=host, port=port, **values)


def _cluster(
    values: Mapping[str, Any], kubeconfig: Path | None, environment: Mapping[str, str]
) -> Cluster | None:
    """How to reach the cluster, if a setting needs it."""
    if values["resource_api"] == "auto":
        need = "--resource-api auto"
    elif values["provision_templates"]:
        need = "--provision-templates"
    else:
        return None
    try:
        cluster = from_kubeconfig(kubeconfig) if kubeconfig else in_cluster(environment)
    except ClusterError as error:
        raise SettingsError(f"--kubeconfig: {error}") from None
    if cluster is None:
        raise SettingsError(
            f"{need} asks the API server, and this is not a pod of a cluster: give --kubeconfig, "
            f"or --resource-api with a version ({', '.join(VERSIONS)})"
        )
    return cluster
