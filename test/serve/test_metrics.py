import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from instaslice.resource_api import VERSIONS, Unavailable
from instaslice.serve.metrics import Metrics


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def series(metrics: Metrics) -> dict[str, float]:
    """The series that are not zero, as Prometheus reads them."""
    return {
        f"{sample.name}{sample.labels or ''}": sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
        if sample.value
    }


def test_there_are_no_series_that_only_say_when_a_series_began(metrics: Metrics) -> None:
    assert "_created" not in metrics.render().decode()


def test_every_metric_is_documented_and_ours(metrics: Metrics) -> None:
    text = metrics.render().decode()
    for name in re.findall(r"^# TYPE (\S+)", text, re.MULTILINE):
        assert name.startswith("instaslice_")
        [told] = re.findall(rf"^# HELP {name} (.*)", text, re.MULTILINE)
        assert told.endswith(".")


def test_an_admission_counts_by_operation_and_outcome(metrics: Metrics) -> None:
    before = series(metrics)
    metrics.count("CREATE", "rewritten", {})
    metrics.count("CONNECT", "unchanged", {})
    metrics.count_bad_call()
    name = "instaslice_admission_requests_total"
    changed = {key: value for key, value in series(metrics).items() if before.get(key) != value}
    assert changed == {
        f"{name}{{'operation': 'CREATE', 'outcome': 'rewritten'}}": 1,
        f"{name}{{'operation': 'other', 'outcome': 'unchanged'}}": 1,
        f"{name}{{'operation': 'other', 'outcome': 'bad_call'}}": 1,
    }


def test_one_version_of_the_api_is_shown_at_a_time(metrics: Metrics) -> None:
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
