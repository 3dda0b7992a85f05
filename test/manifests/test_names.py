"""Names of claims in files: the same for the same, and different for everything else."""

import uuid
from itertools import pairwise
from typing import Any

import pytest

from instaslice.manifests.workloads import Manifest, claim_names

TEMPLATE = ("spec", "template")


def manifest(**fields: Any) -> Manifest:
    usual = {"value": {}, "path": (), "group": "apps", "kind": "Deployment"}
    return Manifest(**{**usual, "namespace": "ml", "name": "web", **fields})


def name(made: Manifest, path: tuple[str, ...] = TEMPLATE, *uses: tuple[str, str]) -> str:
    """The last of the names for some containers and templates."""
    new_name = claim_names(made, path)
    return [new_name(*use) for use in uses or (("c", "mig-1g.5gb"),)][-1]


def test_a_name_is_a_uuid_of_version_5_and_stays_the_same() -> None:
    assert uuid.UUID(name(manifest())).version == 5
    assert name(manifest()) == name(manifest())
    assert name(manifest()) == name(manifest(value={"edited": True}))


def test_a_later_version_gives_the_same_names() -> None:
    """Else every file that was rewritten would change with an upgrade."""
    ours = uuid.uuid5(uuid.NAMESPACE_DNS, "instaslice.io")
    parts = "apps\nDeployment\nml\nweb\nspec/template\nc\nmig-1g.5gb\n1"
    assert (
        name(manifest()) == str(uuid.uuid5(ours, parts)) == "311f06e1-91d9-5d79-9c69-680d6aae47ad"
    )


def test_where_a_manifest_lies_in_a_list_does_not_matter() -> None:
    inside = manifest(path=("items", 3))
    assert name(inside, ("items", "3", *TEMPLATE)) == name(manifest())


@pytest.mark.parametrize(
    "other",
    [
        name(manifest(group="batch")),
        name(manifest(kind="StatefulSet")),
        name(manifest(namespace=None)),
        name(manifest(name="api")),
        name(manifest(), ("spec", "jobTemplate")),
        name(manifest(), TEMPLATE, ("d", "mig-1g.5gb")),
        name(manifest(), TEMPLATE, ("c", "mig-2g.10gb")),
        name(manifest(), TEMPLATE, ("c", "mig-1g.5gb"), ("c", "mig-1g.5gb")),
    ],
)
def test_whatever_tells_claims_apart_tells_their_names_apart(other: str) -> None:
    assert other != name(manifest())


def test_claims_of_other_kinds_in_between_change_nothing() -> None:
    one, two = ("c", "mig-1g.5gb"), ("c", "mig-3g.20gb")
    assert name(manifest(), TEMPLATE, two, two, one) == name(manifest(), TEMPLATE, one)


def test_parts_do_not_run_into_each_other() -> None:
    several = [name(manifest(namespace="a", name="bc")), name(manifest(namespace="ab", name="c"))]
    assert all(a != b for a, b in pairwise(several))
