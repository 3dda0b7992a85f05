import kubernetes_validate
import pytest

from instaslice import profiles
from instaslice.profiles import Profile
from instaslice.resource_api import VERSIONS
from instaslice.templates import device_classes, templates

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
