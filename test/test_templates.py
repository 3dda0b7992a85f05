import contextlib
import io
import json
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from instaslice import profiles
from instaslice.cli.main import main
from instaslice.profiles import Profile
from instaslice.resource_api import VERSIONS
from instaslice.templates import device_classes, templates

HACK = Path(__file__).parent.parent / "hack"
#: The published schemas of each version of the API, by a Kubernetes that serves it.
KUBERNETES = {"1.27": "v1alpha2", "1.30": "v1alpha2", "1.31": "v1alpha3", "1.32": "v1beta1"}
KUBERNETES |= {"1.33": "v1beta2", "1.34": "v1", "1.37": "v1"}


def profile(name: str) -> Profile:
    found = profiles.from_attribute(name)
    assert found
    return found


@pytest.mark.parametrize(("kubernetes", "version"), KUBERNETES.items())
def test_templates_are_valid_by_the_published_schemas(kubernetes: str, version: str) -> None:
    for known in profiles.known_profiles():
        *_, template = templates(VERSIONS[version], known, "ml")
        assert template["kind"] == "ResourceClaimTemplate"
        kubernetes_validate.validate(template, kubernetes, strict=True)


@pytest.mark.parametrize("kubernetes", ["1.36", "1.37"])
def test_device_classes_are_valid_by_the_published_schemas(kubernetes: str) -> None:
    for manifest in device_classes(profiles.known_profiles()):
        kubernetes_validate.validate(manifest, kubernetes, strict=True)
        assert manifest["metadata"]["name"].islower()


def test_a_template_asks_for_the_profile_as_the_driver_prints_it() -> None:
    [template] = templates(VERSIONS["v1"], profile("1g.10gb+me"), "ml")
    assert template == {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaimTemplate",
        "metadata": {
            "name": "mig-1g.10gb.me",
            "namespace": "ml",
            "labels": {"app.kubernetes.io/managed-by": "instaslice"},
        },
        "spec": {
            "spec": {
                "devices": {
                    "requests": [
                        {
                            "name": "mig-1g-10gb-me",
                            "exactly": {
                                "deviceClassName": "mig.nvidia.com",
                                "selectors": [
                                    {
                                        "cel": {
                                            "expression": "device.attributes['gpu.nvidia.com']"
                                            ".profile == '1g.10gb+me'"
                                        }
                                    }
                                ],
                            },
                        }
                    ]
                }
            }
        },
    }


def test_in_v1alpha2_parameters_come_before_the_template_that_names_them() -> None:
    parameters, template = templates(VERSIONS["v1alpha2"], profile("1g.10gb+me"))
    assert parameters["kind"] == "MigDeviceClaimParameters"
    assert parameters["spec"] == {"profile": "1g.10gb+me"}
    assert template["spec"]["spec"]["parametersRef"]["name"] == parameters["metadata"]["name"]
    assert "namespace" not in template["metadata"]


def printed(*arguments: str) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as output:
        assert main(list(arguments)) == 0
    return output.getvalue()


@pytest.mark.parametrize("version", VERSIONS)
def test_the_manifests_in_hack_are_what_the_command_prints(version: str) -> None:
    name = "mig-profiles.yaml" if version == "v1alpha2" else f"mig-profiles-{version}.yaml"
    text = printed("templates", "--resource-api", version)
    assert (HACK / name).read_text() == text
    found = [m for m in yaml.safe_load_all(text) if m["kind"] == "ResourceClaimTemplate"]
    names = [manifest["metadata"]["name"] for manifest in found]
    assert names == [known.template for known in profiles.known_profiles()]


def test_the_device_classes_in_hack_are_what_the_command_prints() -> None:
    assert (HACK / "mig-deviceclasses.yaml").read_text() == printed("deviceclasses")


@pytest.mark.parametrize(
    "spelling", ["1g.5gb+me", "1g.5gb.me", "mig-1g.5gb.me", "nvidia.com/mig-1g.5gb.me"]
)
def test_profiles_may_be_named_in_any_spelling(spelling: str) -> None:
    [manifest] = yaml.safe_load_all(printed("templates", spelling))
    assert manifest["metadata"]["name"] == "mig-1g.5gb.me"
    assert json.dumps(manifest).count("1g.5gb+me") == 1


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["templates", "banana"], "'banana' is not a MIG profile, such as 1g.5gb or 1g.10gb+me"),
        (["templates", "--apply"], "--apply needs --namespace NS, or --all-namespaces"),
        (
            ["templates", "--apply", "-A", "-n", "ml"],
            "--apply needs --namespace NS, or --all-namespaces",
        ),
    ],
)
def test_what_cannot_be_done_is_one_line(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr() == ("", f"instaslice: {line}\n")
