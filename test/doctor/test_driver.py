"""What drivers publish, and what pods want of it."""

from dataclasses import replace
from typing import Any

import pytest

from instaslice.cluster.gates import EXTENDED, Known
from instaslice.doctor.checks import CHECKS
from instaslice.doctor.snapshot import Snapshot, Unreadable
from instaslice.resources import read_mapping
from test.support import a100
from test.support.snapshots import (
    HEALTHY,
    claim,
    device_class,
    findings,
    named,
    other_than_good,
    own_classes,
    pod,
    slice_,
    template,
    with_lists,
)

Json = dict[str, Any]


def texts(found: list[tuple[str, str, str]]) -> list[str]:
    return [f"{state} {text}" for state, text, _ in found]


def test_no_driver() -> None:
    found = findings(CHECKS["driver"](with_lists(classes=[])))
    assert found == [("✗", "there is no DeviceClass mig.nvidia.com", "install NVIDIA's DRA driver")]


def test_nothing_is_published() -> None:
    ((state, text, _),) = findings(CHECKS["slices"](with_lists(slices=[])))
    assert (state, text) == ("✗", "no ResourceSlice publishes a MIG slice")


def test_what_is_published_and_free() -> None:
    counters, first, second = a100.resource_slices()
    named_ = {device["name"]: device for device in second["spec"]["devices"]}
    named_["gpu-1-mig-4g20gb-5-0"]["taints"] = [{"key": "health", "effect": "NoExecute"}]
    named_["gpu-1-mig-3g20gb-9-0"]["allowMultipleAllocations"] = True
    found = texts(
        findings(CHECKS["slices"](with_lists(slices=[counters, first, second], claims=[])))
    )
    assert "✓ 3g.20gb: 4 free, 4 published, 1 of them shared: several claims may have one" in found
    assert "✓ 4g.20gb: 1 free, 2 published, 1 of them tainted" in found
    assert "! gpu-1-mig-4g20gb-5-0 has the taint health:NoExecute, which keeps claims away" in found


def test_a_pool_in_the_making() -> None:
    counters, first, _ = a100.resource_slices()
    found = texts(other_than_good(CHECKS["slices"](with_lists(slices=[counters, first]))))
    assert found == ["! nothing of pool node-1 is free: 2 of its 3 ResourceSlices are there"]


def test_counters_that_were_dropped() -> None:
    dropped = with_lists(slices=a100.resource_slices(counted=False))
    ((state, text, advice),) = findings(CHECKS["overlap"](dropped))
    assert state == "✗"
    assert text.startswith(
        "gpu-0-mig-1g10gb-15-0, gpu-0-mig-1g10gb-15-2, gpu-0-mig-1g10gb-15-4 and 47 more consume "
        "no counters"
    )
    assert "DRAPartitionableDevices" in advice
    assert findings(CHECKS["overlap"](with_lists(slices=a100.resource_slices()))) == []


def mapping(*texts_: str, **lists: list[Json]) -> Snapshot:
    return replace(with_lists(**lists), resources=read_mapping(texts_))


def test_resources_that_are_mapped() -> None:
    counters, first, second = a100.resource_slices()
    first["spec"]["devices"].append(a100.whole_gpu(0))
    other = slice_(pool="amd")
    other["spec"]["driver"] = "gpu.amd.com"
    snapshot = mapping(
        "nvidia.com/gpu=gpu.nvidia.com",
        "amd.com/gpu=gpu.amd.com",
        "intel.com/gpu=gpu.intel.com",
        "example.com/none=none.example.com",
        "example.com/odd=odd.example.com",
        "example.com/slice=mig-1g.5gb",
        slices=[counters, first, second, other],
        claims=[],
        classes=[
            device_class("gpu.nvidia.com"),
            device_class("gpu.amd.com", driver="gpu.amd.com"),
            device_class("gpu.intel.com", driver="gpu.intel.com"),
            named("odd.example.com", "", spec={}),
        ],
    )
    assert texts(findings(CHECKS["mapped"](snapshot))) == [
        "✓ nvidia.com/gpu is mapped to gpu.nvidia.com: 1 free, 1 published",
        "✓ amd.com/gpu is mapped to gpu.amd.com: 1 published",
        "✗ intel.com/gpu is mapped to gpu.intel.com, and gpu.intel.com publishes no device of it",
        "✗ example.com/none is mapped to none.example.com, which does not exist",
        "! example.com/odd is mapped to odd.example.com, whose selectors name no driver",
        "✓ example.com/slice is mapped to mig-1g.5gb.nvidia.com, which InstaSlice makes when a pod "
        "needs it",
    ]


def test_a_mapping_that_is_wrong() -> None:
    wrong = replace(HEALTHY, failures={"mapping": Unreadable("'x' is not NAME=DEVICECLASS")})
    assert texts(findings(CHECKS["mapped"](wrong))) == [
        "✗ InstaSlice's mapping is wrong: 'x' is not NAME=DEVICECLASS"
    ]


def test_a_profile_that_nobody_has() -> None:
    pods = [pod(f"p-{n}", template="mig-7g.40gb.x2") for n in range(5)]
    pods += [
        pod("q", template="mig-7g.40gb-or-1g.5gb"),
        pod("r", template="mig-7g.40gb-or-3g.20gb"),
        pod("s", template="mig-2g.10gb-or-bigger"),
        pod("t", template="mig-1g.5gb-or-bigger"),
    ]
    found = findings(CHECKS["profiles"](with_lists(pods=pods)))
    assert found == [
        (
            "✗",
            "no node publishes 7g.40gb, needed by ml/p-0, ml/p-1, ml/p-2 and 2 more",
            "nodes publish 1g.5gb, 1g.5gb+me",
        ),
        (
            "✗",
            "no node publishes 7g.40gb or 3g.20gb, needed by ml/r",
            "nodes publish 1g.5gb, 1g.5gb+me",
        ),
        (
            "✗",
            "no node publishes 2g.10gb or bigger, needed by ml/s",
            "nodes publish 1g.5gb, 1g.5gb+me",
        ),
    ]


def test_templates_that_pods_need() -> None:
    pods = [pod("p", template="mig-1g.5gb.x2"), pod("q", template="same-gpu-mig-1g.5gb.x2")]
    elsewhere = [named("mig-1g.5gb.x2", "elsewhere")]
    differing, *elsewhere_ = findings(
        CHECKS["templates"](
            with_lists(pods=[], templates=[*elsewhere, named("x"), template("mig-1g.5gb")])
        )
    )
    assert differing[0] == "✗"
    assert differing[1].startswith("elsewhere/mig-1g.5gb.x2 is not as InstaSlice makes it")
    assert differing[2] == "kubectl -n elsewhere delete resourceclaimtemplate mig-1g.5gb.x2"
    assert elsewhere_ == []
    ((state, text, advice),) = findings(CHECKS["templates"](with_lists(pods=pods, templates=[])))
    assert state == "✗"
    assert text == (
        "pods in ml need templates that do not exist: mig-1g.5gb.x2, same-gpu-mig-1g.5gb.x2"
    )
    assert advice == "instaslice templates --apply -n ml mig-1g.5gb.x2 same-gpu-mig-1g.5gb.x2"


def test_pods_that_wait_for_nobody() -> None:
    pods = [
        pod("old", limit="mig-1g.5gb"),
        pod("runs", limit="mig-1g.5gb", node="n"),
        pod("gpu", limit="gpu"),
        pod("done", limit="mig-1g.5gb", phase="Failed"),
    ]
    ((state, text, _),) = findings(CHECKS["old pods"](with_lists(pods=pods, classes=[])))
    assert (state, text) == (
        "✗",
        "ml/old were created without InstaSlice, and nobody serves their limits",
    )
    served = [device_class("c", "nvidia.com/mig-1g.5gb")]
    assert findings(CHECKS["old pods"](with_lists(pods=pods, classes=served))) == []


def test_classes_that_pods_ask_through() -> None:
    def found(*classes: Json) -> list[tuple[str, str, str]]:
        return other_than_good(CHECKS["device classes"](with_lists(classes=[*classes])))

    name, command = "mig-1g.5gb.nvidia.com", "instaslice deviceclasses mig-1g.5gb | kubectl apply"
    ((state, text, advice),) = found()
    assert (state, text) == ("✗", f"there is no DeviceClass {name}, needed by ml/p")
    assert advice.startswith(command)
    (ours,) = own_classes("mig-1g.5gb")
    assert found(ours) == []
    never = {"cel": {"expression": "false"}}
    theirs = {**ours, "spec": {**ours["spec"], "selectors": [never]}}
    ((state, text, advice),) = found(theirs)
    assert (state, advice.startswith(command)) == ("✗", True)
    assert text.startswith(f"DeviceClass {name} is not as InstaSlice makes it: ")
    nameless = {**ours, "spec": {"selectors": ours["spec"]["selectors"]}}
    assert "extendedResourceName" in found(nameless)[0][1]
    off = replace(with_lists(classes=[nameless]), gates={EXTENDED: Known(False)})
    assert other_than_good(CHECKS["device classes"](off)) == []


def test_pods_that_name_their_node() -> None:
    pods = [pod("bound", template="mig-1g.5gb", node="n"), pod("waits", template="mig-1g.5gb")]
    ((state, text, _),) = findings(CHECKS["node names"](with_lists(pods=pods)))
    assert (state, text.partition(":")[0]) == ("✗", "ml/bound")
    pods[0]["status"]["resourceClaimStatuses"] = [{"name": "0123456789", "resourceClaimName": "m"}]
    made = named("m") | claim("mig-0")
    assert findings(CHECKS["node names"](with_lists(pods=pods, claims=[made]))) == []


def test_whole_gpus_that_nobody_serves() -> None:
    """The GPU operator's GPUCluster has a class without an extendedResourceName."""
    whole = device_class("gpu.nvidia.com")
    cluster = with_lists(pods=[pod("p", limit="gpu")], classes=[whole])
    ((state, text, advice),) = findings(CHECKS["whole GPUs"](cluster))
    assert (state, advice[:6]) == ("✗", "map it")
    assert text.startswith("ml/p need nvidia.com/gpu, which no device plugin and no DeviceClass")
    served = device_class("gpu.nvidia.com", "nvidia.com/gpu")
    mapped = replace(cluster, resources=read_mapping(["nvidia.com/gpu=gpu.nvidia.com"]))
    offering = with_lists(cluster, nodes=[node("n", gpu="1")])
    for fine in (with_lists(cluster, classes=[served]), mapped, offering):
        assert findings(CHECKS["whole GPUs"](fine)) == []


def node(name: str, labels: Json = {}, /, **amounts: str) -> Json:  # noqa: B006 - only read
    allocatable = {f"nvidia.com/{key}": amount for key, amount in amounts.items()}
    metadata = {"name": name, "labels": labels}
    return {"metadata": metadata, "status": {"allocatable": allocatable}}


def choosing(label: str, *values: str) -> Json:
    """A pod that requires one of the values of a node's label."""
    found = pod(limit="mig-1g.5gb")
    term = {"matchExpressions": [{"key": label, "operator": "In", "values": [*values]}]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    found["spec"]["affinity"] = {"nodeAffinity": required}
    return found


@pytest.mark.parametrize(
    ("labels", "is_wrong"),
    [({}, True), ({"nvidia.com/mig.config": "x"}, True), ({"nvidia.com/mig.config": "b"}, False)],
)
def test_labels_that_no_node_has(labels: Json, is_wrong: bool) -> None:
    pods = [choosing("nvidia.com/mig.config", "a", "b"), choosing("zone", "a")]
    found = findings(CHECKS["node labels"](with_lists(pods=pods, nodes=[node("n", labels)])))
    text = "ml/p choose nodes by the label nvidia.com/mig.config=a or b, which no node has"
    assert [(state, text_) for state, text_, _ in found] == [("!", text)] * is_wrong
    bound = [{**pods[0], "spec": {**pods[0]["spec"], "nodeName": "n"}}]
    assert findings(CHECKS["node labels"](with_lists(pods=bound, nodes=[node("n")]))) == []


def test_device_plugins() -> None:
    old = [node(f"old-{n}", **{"mig-1g.5gb": "7", "gpu": "1"}) for n in range(5)]
    nodes = [*old, node("node-1", **{"mig-1g.5gb": "7"}), node("new", **{"mig-1g.5gb": "0"})]
    found = texts(findings(CHECKS["device plugin"](with_lists(nodes=nodes))))
    assert found == [
        "! old-0, old-1, old-2 and 2 more: a device plugin advertises nvidia.com/mig-1g.5gb: "
        "rewritten pods cannot have these slices",
        "✗ node-1: a device plugin advertises nvidia.com/mig-1g.5gb, and MIG slices are published "
        "for DRA as well",
    ]
    mapped = mapping("nvidia.com/gpu=gpu.nvidia.com", nodes=[node("n", gpu="1")])
    assert texts(findings(CHECKS["device plugin"](mapped))) == [
        "! n: a device plugin advertises nvidia.com/gpu: rewritten pods cannot have these devices"
    ]
