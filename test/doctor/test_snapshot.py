"""What a cluster's objects say about themselves."""

from dataclasses import replace

import pytest

from instaslice.doctor import snapshot
from instaslice.doctor.snapshot import Unreadable
from instaslice.resource_api import VERSIONS
from test.support.snapshots import HEALTHY, named, pod, with_lists


def test_a_list_that_could_not_be_read_is_an_error_and_no_empty_list() -> None:
    blind = replace(HEALTHY, failures={"pods": "403 forbidden"})
    with pytest.raises(Unreadable, match=r"^pods could not be read: 403 forbidden$"):
        blind.all("pods")
    assert HEALTHY.all("no such list") == []


def test_the_webhook_is_found_by_its_name_in_any_configuration() -> None:
    assert HEALTHY.webhook is not None
    assert HEALTHY.webhook["name"] == "rewrite.instaslice.io"
    assert (
        with_lists(webhooks=[{"webhooks": [{"name": "other"}]}, {"webhooks": None}]).webhook is None
    )


def test_only_v1alpha2_is_classic() -> None:
    classic = {name for name, api in VERSIONS.items() if replace(HEALTHY, api=api).is_classic}
    assert classic == {"v1alpha2"}
    assert replace(HEALTHY, api=VERSIONS["v1alpha2"]).supply == {}


def test_what_a_pod_still_asks_for_by_limits() -> None:
    one = pod(limit="mig-1g.5gb")
    one["spec"]["initContainers"] = [
        {"resources": {"limits": {"nvidia.com/mig-3g.20gb": "2", "nvidia.com/gpu": "1"}}},
        {"resources": None},
        {},
    ]
    assert snapshot.wanted_limits(one) == {
        "nvidia.com/mig-1g.5gb": "1",
        "nvidia.com/mig-3g.20gb": "2",
    }


def test_pods_that_have_ended_hold_nothing() -> None:
    phases = ("Pending", "Running", "Succeeded", "Failed", "Unknown")
    living = snapshot.living(pod(phase, phase=phase) for phase in phases)
    assert [each["metadata"]["name"] for each in living] == ["Pending", "Running", "Unknown"]
    assert list(snapshot.living([{"metadata": {}}])) == [{"metadata": {}}]


def test_an_object_is_named_with_its_namespace() -> None:
    assert snapshot.full_name(named("a")) == "ml/a"
