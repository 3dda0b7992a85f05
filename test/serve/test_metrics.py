import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

import instaslice
from instaslice.resource_api import VERSIONS, Unavailable
from instaslice.resources import read_mapping
from instaslice.serve.metrics import CREATION_OUTCOMES, Metrics
from instaslice.templates import claim_of


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def series(metrics: Metrics) -> dict[str, float]:
    """The series that are not zero, as Prometheus reads them."""
    return {
        f"{sample.name}{sample.labels or ''}": sample.value
        for family in text_string_to_metric_families(metrics.show().decode())
        for sample in family.samples
        if sample.value
    }


def test_no_series_has_the_time_of_its_creation(metrics: Metrics) -> None:
    assert "_created" not in metrics.show().decode()


def test_every_metric_is_documented(metrics: Metrics) -> None:
    text = metrics.show().decode()
    for name in re.findall(r"^# TYPE (\S+)", text, re.MULTILINE):
        assert name.startswith("instaslice_")
        [told] = re.findall(rf"^# HELP {name} (.*)", text, re.MULTILINE)
        assert told.endswith(".")


def test_claims_are_counted_by_known_or_mapped_resource() -> None:
    """The number of series does not grow with the names that users type."""
    resources = read_mapping(["nvidia.com/gpu=gpu.nvidia.com", "a.com/single=mig-9g.99gb"])
    metrics = Metrics(resources)
    names = [
        *("nvidia.com/mig-1g.5gb", "nvidia.com/gpu", "a.com/single", "nvidia.com/mig-8g.88gb"),
        *("nvidia.com/mig-7g.77gb", "nvidia.com/mig-1g.5gb"),
    ]
    for number, name in enumerate(names, 1):
        resource = resources.find(name)
        assert resource
        metrics.count("CREATE", "rewritten", {claim_of(resource): number})
    name = "instaslice_claims_total"
    counted = {key: value for key, value in series(metrics).items() if key.startswith(name)}
    assert counted == {
        f"{name}{{'resource': 'nvidia.com/mig-1g.5gb'}}": 1 + 6,
        f"{name}{{'resource': 'nvidia.com/gpu'}}": 2,
        f"{name}{{'resource': 'nvidia.com/mig-9g.99gb'}}": 3,
        f"{name}{{'resource': 'other'}}": 4 + 5,
    }
    assert Metrics(resources).show().count(b"\n") == metrics.show().count(b"\n")


def test_one_api_version_is_shown_at_a_time(metrics: Metrics) -> None:
    def shown() -> set[str]:
        return {key for key in series(metrics) if "resource_api" in key}

    assert shown() == set()
    for api, version in (
        (Unavailable("none is served"), "none"),
        (VERSIONS["v1"], "v1"),
        (VERSIONS["v1"], "v1"),
        (VERSIONS["v1beta1"], "v1beta1"),
    ):
        metrics.show_resource_api(api)
        assert shown() == {f"instaslice_resource_api_info{{'version': '{version}'}}"}


def test_likely_series_exist_from_the_start(metrics: Metrics) -> None:
    text = metrics.show().decode()
    found = re.findall(r"^(instaslice_\S+) (\S+)$", text, re.MULTILINE)
    start = {name: float(value) for name, value in found}
    for operation in ("CREATE", "UPDATE", "other"):
        for outcome in ("rewritten", "restored", "unchanged", "denied", "unavailable"):
            labels = f'operation="{operation}",outcome="{outcome}"'
            assert start[f"instaslice_admission_requests_total{{{labels}}}"] == 0
    assert start['instaslice_admission_requests_total{operation="other",outcome="bad_call"}'] == 0
    for outcome in CREATION_OUTCOMES:
        assert start[f'instaslice_template_creations_total{{outcome="{outcome}"}}'] == 0
    for name in ("nvidia.com/mig-1g.5gb", "nvidia.com/mig-1g.10gb.me", "other"):
        assert start[f'instaslice_claims_total{{resource="{name}"}}'] == 0
    assert start[f'instaslice_build_info{{version="{instaslice.__version__}"}}'] == 1
