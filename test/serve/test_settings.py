"""Flags and environment variables, as `instaslice serve` reads them."""

import pytest

from instaslice.cli.main import main
from instaslice.serve import settings
from instaslice.templates import claim_of


def test_help_explains_each_setting(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for option in settings.SERVE:
        assert option.flag in text
        assert option.metavar in text
        assert option.variable in text


OUTSIDE = (
    "asks the API server, and this is not a pod of a cluster: give --kubeconfig, "
    "or --resource-api with a version (v1alpha2, v1alpha3, v1beta1, v1beta2, v1)"
)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--cert-dir", ""], "--cert-dir: '' is not the name of a folder"),
        (["--bind", "8443"], "--bind: '8443' is not HOST:PORT"),
        (["--bind", "::1:https"], "--bind: '::1:https' is not HOST:PORT"),
        (["--bind", "a:65536"], "--bind: 'a:65536' is not HOST:PORT"),
        (["--threads", "0"], "--threads: '0' is not a number from 1 to 512"),
        (["--threads", "many"], "--threads: 'many' is not a number from 1 to 512"),
        (["--log-format", "xml"], "--log-format: 'xml' is not one of json, text"),
        (["--log-level", "all"], "--log-level: 'all' is not one of info, warning, error"),
        (
            ["--client-ca", "ca.crt", "--client-names", " ,"],
            "--client-names: ' ,' has no name in it",
        ),
        ([], f"--resource-api auto {OUTSIDE}"),
        (["--resource-api", "v1", "--provision-templates"], f"--provision-templates {OUTSIDE}"),
        (["--resource", "nvidia.com/gpu"], "--resource: 'nvidia.com/gpu' is not NAME=DEVICECLASS"),
        (
            ["--resource", "a.com/b=c", "--resource", "cpu=c"],
            "--resource: 'cpu' is not an extended resource, such as nvidia.com/gpu",
        ),
        (["--resource", "a.com/b=c,a.com/b=d"], "--resource: 'a.com/b' is mapped twice"),
        (
            ["--resource", "amd.com/gpu=gpu.amd.com", "--resource-api", "v1alpha2"],
            "--resource: 'amd.com/gpu' cannot be mapped: resource.k8s.io/v1alpha2 cannot ask for "
            "gpu.amd.com",
        ),
        (
            ["--client-names", "kube-apiserver"],
            "--client-names: needs --client-ca, or no caller shows a certificate",
        ),
    ],
)
def test_a_bad_setting_is_one_line(
    arguments: list[str],
    line: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert main(["serve", "--cert-dir", "certs", *arguments]) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", f"instaslice: {line}\n")


def test_a_missing_setting_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve"]) == 2
    line = "instaslice: --cert-dir (or INSTASLICE_CERT_DIR) is missing\n"
    assert capsys.readouterr() == ("", line)


@pytest.mark.parametrize(
    ("variable", "value", "line"),
    [
        ("BIND", "nowhere", "'nowhere' is not HOST:PORT"),
        ("RESOURCES", "nvidia.com/gpu=gpu.nvidia.com,", "'' is not NAME=DEVICECLASS"),
        ("ALTERNATIVES", "1g.5gb or larger", "'1g.5gb or larger': larger is not a MIG profile"),
    ],
)
def test_a_bad_variable_is_one_line_that_names_it(
    variable: str,
    value: str,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(f"INSTASLICE_{variable}", value)
    assert main(["serve", "--cert-dir", "certs"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"instaslice: INSTASLICE_{variable}: {line}")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("typed", "address"),
    [
        ("127.0.0.1:8443", ("127.0.0.1", 8443)),
        (":0", ("::", 0)),
        ("[::]:8443", ("::", 8443)),
        ("0.0.0.0:8443", ("0.0.0.0", 8443)),
        ("[::1]:443", ("::1", 443)),
        ("localhost:1", ("localhost", 1)),
    ],
)
def test_addresses(typed: str, address: tuple[str, int]) -> None:
    assert settings.SERVE[0].parse(typed) == address


FIXED = {"cert_dir": "certs", "resource_api": "v1"}


@pytest.mark.parametrize(
    ("typed", "environment", "mapped"),
    [
        ({}, {}, {}),
        (
            {"resources": ["nvidia.com/gpu=gpu.nvidia.com"]},
            {},
            {"nvidia.com/gpu": "gpu.nvidia.com"},
        ),
        (
            {"resources": ["nvidia.com/gpu=mig-1g.5gb", "amd.com/gpu=gpu.amd.com"]},
            {"INSTASLICE_RESOURCES": "intel.com/gpu=gpu.intel.com"},
            {"nvidia.com/gpu": "mig-1g.5gb.nvidia.com", "amd.com/gpu": "gpu.amd.com"},
        ),
        ({}, {"INSTASLICE_RESOURCES": "a.com/b=c, d.com/e=f"}, {"a.com/b": "c", "d.com/e": "f"}),
        ({}, {"INSTASLICE_RESOURCES": ""}, {}),
        (
            {"resources": ["nvidia.com/gpu=gpu.nvidia.com"], "resource_api": "v1alpha2"},
            {},
            {"nvidia.com/gpu": "gpu.nvidia.com"},
        ),
    ],
)
def test_resources_may_be_mapped(
    typed: dict[str, str | list[str]], environment: dict[str, str], mapped: dict[str, str]
) -> None:
    chosen = settings.read({**FIXED, **typed}, environment)
    found = {name: resource.device_class for name, resource in chosen.resources.mapped.items()}
    assert found == mapped


@pytest.mark.parametrize(
    ("text", "template"),
    [
        ("1g.5gb or bigger; 3g.20gb or 3g.40gb", "mig-1g.5gb-or-bigger"),
        ("none", "mig-1g.5gb"),
        ("", "mig-1g.5gb"),
    ],
)
def test_alternatives_for_all_pods(text: str, template: str) -> None:
    resources = settings.read(FIXED, {"INSTASLICE_ALTERNATIVES": text}).resources
    asked = resources.find("nvidia.com/mig-1g.5gb")
    assert asked
    assert claim_of(asked, 1, *resources.alternatives.get(asked, ())).template == template
