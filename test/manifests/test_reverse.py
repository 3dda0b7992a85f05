"""Forwards and back is where one came from."""

import copy
import json
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
    """A pod without what does not come back.

    Limits are numbers, requests that repeat them are left out, and so is what is empty. Claims of
    InstaSlice's own templates are left out too.
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
def test_forwards_and_back_is_the_identity(pod: Json, api: ResourceAPI, random: Random) -> None:
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
        resources:
          limits:
            nvidia.com/mig-1g.5gb: 1
      containers:
        - name: a   # two
          resources:
            limits:
              nvidia.com/mig-1g.5gb: 3
              nvidia.com/mig-3g.20gb: 1
          command: ["x"]
        - {name: b, resources: {limits: {cpu: 1, nvidia.com/mig-1g.5gb: 40}}}
""")


def test_it_is_so_to_the_byte_where_limits_are_written_plainly() -> None:
    there = after(POD)
    assert there != POD
    assert after(there, BACK) == POD


@pytest.mark.parametrize("placement", ["same-gpu", "different-gpus"])
def test_claims_that_annotations_led_to_go_back_too(placement: str) -> None:
    annotations = {
        "instaslice.io/placement": placement,
        "instaslice.io/alternatives": "1g.5gb or 1g.10gb",
    }
    limits = [{"nvidia.com/mig-1g.5gb": 2}, {"nvidia.com/mig-1g.5gb": 1}]
    pod = {
        "kind": "Pod",
        "metadata": {"name": "p", "annotations": annotations},
        "spec": {
            "containers": [
                {"name": f"c{n}", "resources": {"limits": each}} for n, each in enumerate(limits)
            ]
        },
    }
    there = after(json.dumps(pod))
    assert f'"{placement}-mig-1g.5gb' in there
    assert json.loads(after(there, BACK)) == pod


def test_a_resource_that_is_mapped_has_its_name_again() -> None:
    text = "kind: Pod\nspec: {containers: [{resources: {limits: {nvidia.com/gpu: 2}}}]}\n"
    for target in ("gpu.nvidia.com", "mig-1g.5gb"):
        resources = read_mapping([f"nvidia.com/gpu={target}"])
        there = after(text, Task(resources=resources))
        assert after(there, Task(resources=resources, is_reverse=True)) == text


def test_a_claim_with_a_name_of_its_own_goes_back_if_its_template_is_ours() -> None:
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
    assert yaml.safe_load(after(text, BACK))["spec"] == {
        "containers": [
            {
                "name": "a",
                "resources": {
                    "claims": [{"name": "other"}],
                    "limits": {"nvidia.com/mig-1g.5gb": 1},
                },
            }
        ],
        "resourceClaims": [{"name": "other", "resourceClaimTemplateName": "theirs"}],
    }


@pytest.mark.parametrize(
    ("users", "warning"),
    [
        (["a", "b"], "the claim gpu is left as it is: a and b share it, as no limit can"),
        ([], "the claim gpu is left as it is: no container uses it"),
    ],
)
def test_what_no_limit_can_say_is_left_with_a_warning(users: list[str], warning: str) -> None:
    use: Json = {"resources": {"claims": [{"name": "gpu"}]}}
    containers = [{"name": name, **use} for name in users]
    claim = {"name": "gpu", "resourceClaimTemplateName": "mig-1g.5gb"}
    pod = {"kind": "Pod", "spec": {"containers": containers, "resourceClaims": [claim]}}
    (document,) = rewritten(json.dumps(pod), BACK)
    assert not document.changed
    assert [each.message for each in document.problems["warning"]] == [warning]


def test_a_template_is_left_with_a_note() -> None:
    text = "kind: ResourceClaimTemplate\nmetadata: {name: mig-1g.5gb}\n"
    (document,) = rewritten(text, BACK)
    assert (document.after, len(document.problems["note"])) == (text, 1)
    (document,) = rewritten(text)
    assert document.problems["note"] == []


def test_a_claim_whose_request_its_template_does_not_have_stays() -> None:
    (document,) = rewritten(
        dedent("""
            kind: Pod
            spec:
              containers:
              - {name: c, resources: {claims: [{name: x, request: other}]}}
              resourceClaims:
              - {name: x, resourceClaimTemplateName: same-gpu-mig-1g.5gb-and-mig-2g.10gb}
        """),
        Task(is_reverse=True),
    )
    assert not document.changed
    [warning] = document.problems["warning"]
    assert "c asks for a request that its template does not have" in warning.message
