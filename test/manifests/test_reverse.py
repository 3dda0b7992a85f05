"""`--reverse` restores what `rewrite` replaced."""

import copy
from random import Random
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from instaslice.manifests.documents import Task
from instaslice.resource_api import VERSIONS, ResourceAPI
from instaslice.resources import read_mapping
from test.support import pods, yaml_styles
from test.support.streams import after, dedent, rewritten

Json = dict[str, Any]
BACK = Task(is_reverse=True)


def plain(pod: Json) -> Json:
    """A pod without the parts that do not come back.

    Limits become numbers. Requests that repeat limits, empty members, and claims of InstaSlice's
    templates are removed.
    """
    pod = copy.deepcopy(pod)
    spec = pod["spec"]
    theirs = [c for c in spec.pop("resourceClaims", None) or [] if c["name"] == "theirs"]
    spec.update({"resourceClaims": theirs} if theirs else {})
    for _, _, container in pods.each(pod):
        found = container.pop("resources", None) or {}
        limits = {
            name: pods.number(text) or text if pods.is_mig(name) else text
            for name, text in (found.get("limits") or {}).items()
        }
        requests = {
            name: text
            for name, text in (found.get("requests") or {}).items()
            if not (pods.is_mig(name) and pods.number(found["limits"][name]))
        }
        claims = [claim for claim in found.get("claims") or [] if claim["name"] == "theirs"]
        members = {"limits": limits, "requests": requests, "claims": claims}
        container["resources"] = {key: value for key, value in members.items() if value}
    return pod


@pytest.mark.property
@pods.FEWER
@given(pod=pods.pods(), api=st.sampled_from([*VERSIONS.values()]), random=yaml_styles.STYLES)
def test_reverse_restores_any_pod(pod: Json, api: ResourceAPI, random: Random) -> None:
    pod = plain(pod)
    text = yaml_styles.written(pod, random)
    (there,) = rewritten(text, Task(api=api))
    assert not there.errors
    (back,) = rewritten(there.after, Task(api=api, is_reverse=True))
    assert (back.errors, back.problems["warning"]) == ([], [])
    assert plain(yaml.safe_load(back.after)) == pod


POD = dedent("""
    kind: Pod   # one
    metadata: {name: p}
    spec:
      initContainers:
      - name: first
        image: x
        resources:
          limits:
            nvidia.com/mig-1g.5gb: 1
      containers:
        - name: a   # two
          image: x
          resources:
            limits:
              nvidia.com/mig-1g.5gb: 3
              nvidia.com/mig-3g.20gb: 1
          command: ["x"]
        - {name: b, image: x, resources: {limits: {cpu: 1, nvidia.com/mig-1g.5gb: 40}}}
""")


def test_reverse_restores_plain_limits_to_the_byte() -> None:
    there = after(POD)
    assert there != POD
    assert after(there, BACK) == POD


@pytest.mark.parametrize("placement", ["same-gpu", "different-gpus"])
def test_claims_from_annotations_become_limits(placement: str) -> None:
    text = dedent(f"""
        kind: Pod
        metadata:
          annotations:
            instaslice.io/placement: {placement}
            instaslice.io/alternatives: 1g.5gb or 1g.10gb
        spec:
          containers:
          - {{name: a, resources: {{limits: {{nvidia.com/mig-1g.5gb: 2}}}}}}
          - {{name: b, resources: {{limits: {{nvidia.com/mig-1g.5gb: 1}}}}}}
    """)
    there = after(text)
    assert f"{placement}-mig-1g.5gb" in there
    assert after(there, BACK) == text


def test_mapped_resource_gets_its_name_back() -> None:
    text = "kind: Pod\nspec: {containers: [{resources: {limits: {nvidia.com/gpu: 2}}}]}\n"
    for target in ("gpu.nvidia.com", "mig-1g.5gb"):
        resources = read_mapping([f"nvidia.com/gpu={target}"])
        there = after(text, Task(resources=resources))
        assert after(there, Task(resources=resources, is_reverse=True)) == text


def test_claims_of_our_templates_become_limits_whatever_their_names() -> None:
    text = dedent("""
        kind: Pod
        spec:
          containers:
          - name: a
            resources: {claims: [{name: gpu}, {name: other}]}
          resourceClaims:
          - {name: gpu, resourceClaimTemplateName: mig-1g.5gb}
          - {name: other, resourceClaimTemplateName: theirs}
    """)
    spec = yaml.safe_load(after(text, BACK))["spec"]
    assert spec["containers"][0]["resources"] == {
        "claims": [{"name": "other"}],
        "limits": {"nvidia.com/mig-1g.5gb": 1},
    }
    assert spec["resourceClaims"] == [{"name": "other", "resourceClaimTemplateName": "theirs"}]


GPU = "{name: gpu, resourceClaimTemplateName: %s}"
ONE, PLACED = GPU % "mig-1g.5gb", GPU % "same-gpu-mig-1g.5gb-and-mig-2g.10gb"
A, B, ODD = (
    f"{{name: {name}, resources: {{claims: [{{name: gpu{request}}}]}}}}"
    for name, request in (("a", ""), ("b", ""), ("c", ", request: other"))
)


@pytest.mark.parametrize(
    ("claim", "containers", "why"),
    [
        (ONE, [A, B], "a and b share it, as no limit can"),
        (ONE, [], "no container uses it"),
        (PLACED, [ODD], "c asks for a request that its template does not have"),
    ],
)
def test_claims_that_limits_cannot_express_stay_with_a_warning(
    claim: str, containers: list[str], why: str
) -> None:
    text = f"kind: Pod\nspec: {{containers: [{', '.join(containers)}], resourceClaims: [{claim}]}}"
    (document,) = rewritten(text, BACK)
    assert not document.changed
    (warning,) = document.problems["warning"]
    assert warning.message == f"the claim gpu is left as it is: {why}"


def test_template_stays_with_a_note() -> None:
    text = "kind: ResourceClaimTemplate\nmetadata: {name: mig-1g.5gb}\n"
    (document,) = rewritten(text, BACK)
    assert (document.after, len(document.problems["note"])) == (text, 1)
    (document,) = rewritten(text)
    assert document.problems["note"] == []


@pytest.mark.parametrize(
    "spec",
    [
        "{initContainers: [{name: i, resources: {claims: [{name: a}]}}]}",
        "{resourceClaims: [{name: a, resourceClaimTemplateName: mig-1g.5gb}]}",
    ],
)
def test_patches_with_claims_are_left_with_a_warning(spec: str) -> None:
    patch = (
        f"{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: a}}, "
        f"spec: {{template: {{spec: {spec}}}}}}}"
    )
    for text in (patch, f"kind: Kustomization\npatches:\n- patch: '{patch}'\n"):
        (document,) = rewritten(text, BACK)
        ((_, _, message),) = document.problems["left"]
        assert "it is a patch" in message
        assert not document.changed
