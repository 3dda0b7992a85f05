"""config/: every manifest is valid, and matches the README."""

import itertools
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from instaslice import __version__
from instaslice.profiles import known_profiles
from instaslice.resource_api import Unavailable
from instaslice.serve import settings
from instaslice.serve.limits import Limits
from instaslice.serve.metrics import Metrics
from instaslice.webhook_configuration import BESIDE, OPT_IN, webhook_configuration
from test.support.command import find_tool
from test.support.manifests import (
    POLICIES,
    Manifests,
    as_expected,
    at,
    by_kind_and_name,
    documents,
    expectations,
    kustomize,
    validate,
)

ROOT = Path(__file__).parent.parent
COMPONENTS = (
    *("cert-manager", "own-certificates", "no-api", "kubernetes-1.27", "beside-the-scheduler"),
    *("opt-in", "prometheus", "doctor", "policies"),
)

#: The combinations of components to render, by name.
COMBINATIONS: dict[str, tuple[str, ...]] = {
    "base": (),
    **{name: (name,) for name in COMPONENTS},
    "all that go with cert-manager": (
        *("cert-manager", "no-api", "beside-the-scheduler", "opt-in", "prometheus", "doctor"),
        "policies",
    ),
    "all that go without": (
        *("own-certificates", "no-api", "kubernetes-1.27", "opt-in", "prometheus"),
    ),
}
#: Placeholders for the files that the component own-certificates needs.
CERTIFICATES = {"tls.crt": "a certificate", "tls.key": "a key", "ca.crt": "an authority"}

Render = Callable[..., Manifests]

DEPLOYMENT = ("Deployment", "instaslice")
WEBHOOK = ("MutatingWebhookConfiguration", "instaslice")


@pytest.fixture(scope="session")
def render(tmp_path_factory: pytest.TempPathFactory) -> Render:
    """A function that renders the base with components, each combination once."""
    find_tool("kubectl")  # before any work
    folder = tmp_path_factory.mktemp("config")
    shutil.copytree(ROOT / "config", folder / "config")
    for name, text in CERTIFICATES.items():
        (folder / "config/components/own-certificates" / name).write_text(text)
    rendered: dict[tuple[str, ...], Manifests] = {}

    def render(*components: str) -> Manifests:
        if components not in rendered:
            overlay = folder / "-".join(("with", *components))
            overlay.mkdir()
            kustomization = {
                "resources": ["../config/base"],
                "components": [f"../config/components/{name}" for name in components],
            }
            (overlay / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
            rendered[components] = manifests(kustomize(overlay))
        return rendered[components]

    return render


def manifests(text: str) -> Manifests:
    return by_kind_and_name(documents(text))


def env(deployment: dict[str, Any]) -> dict[str, str]:
    pairs = at(deployment, "spec.template.spec.containers.0.env")
    return {pair["name"]: pair["value"] for pair in pairs}


# Validity and completeness


def test_every_component_has_a_case() -> None:
    assert {path.name for path in (ROOT / "config/components").iterdir()} == set(COMPONENTS)


def test_the_default_is_the_base_with_cert_manager_and_policies(render: Render) -> None:
    assert manifests(kustomize(ROOT / "config/default")) == render("cert-manager", "policies")


def test_the_policy_lists_the_known_profiles(render: Render) -> None:
    (known,) = (
        each["expression"]
        for each in render("policies")["ValidatingAdmissionPolicy", "instaslice-service-account"][
            "spec"
        ]["variables"]
        if each["name"] == "known"
    )
    assert known == f"'{' '.join(each.template for each in known_profiles())}'.split(' ')"


# Expected effects

#: https://kubernetes.io/docs/concepts/overview/working-with-objects/common-labels/
LABELS = {
    "app.kubernetes.io/name": "instaslice",
    "app.kubernetes.io/part-of": "instaslice",
    "app.kubernetes.io/version": __version__,
}
EXPECTED = expectations()
#: These components change the webhook to the output of the command.
for component, mode, path in (
    ("opt-in", OPT_IN, "webhooks.0.namespaceSelector.matchExpressions"),
    ("beside-the-scheduler", BESIDE, "webhooks.0.matchConditions"),
):
    changed = {path: at(webhook_configuration(mode), path)}
    EXPECTED["components"][component][" ".join(WEBHOOK)] = changed


@pytest.mark.parametrize("components", COMBINATIONS.values(), ids=COMBINATIONS)
def test_a_combination_is_valid_and_has_its_effect(
    components: tuple[str, ...], render: Render
) -> None:
    rendered = render(*components)
    validate(rendered.values())
    expected = dict(EXPECTED["config"])
    for name in components:
        for key, changes in EXPECTED["components"][name].items():
            expected[key] = changes and {**expected.get(key, {}), **changes}
    assert as_expected(rendered, expected) == expected


#: The cluster-wide kinds, which undeploy deletes.
CLUSTER_WIDE = {*POLICIES, "ClusterRole", "ClusterRoleBinding", "Namespace", "DeviceClass"}
PARTS = {"policy", "webhook", "registration", "monitoring", "doctor"}


@pytest.mark.parametrize("components", COMBINATIONS.values(), ids=COMBINATIONS)
def test_everything_has_its_namespace_and_labels(
    components: tuple[str, ...], render: Render
) -> None:
    for (kind, name), manifest in render(*components).items():
        expected = None if kind in {*CLUSTER_WIDE, WEBHOOK[0]} else "instaslice-system"
        assert manifest["metadata"].get("namespace") == expected, (kind, name)
        if kind == "DeviceClass":
            continue  # InstaSlice creates the same ones, and they stay
        pod = at(manifest, "spec.template.metadata.labels")
        for labels in (manifest["metadata"]["labels"], *([pod] if pod else [])):
            assert labels.items() >= LABELS.items(), (kind, name)
            assert labels["app.kubernetes.io/component"] in PARTS, (kind, name)


def test_only_the_webhook_configuration_has_the_registration_label(render: Render) -> None:
    """`make deploy` applies it last, by that label."""
    rendered = render("cert-manager", "prometheus")
    assert [
        key
        for key, manifest in rendered.items()
        if manifest["metadata"]["labels"]["app.kubernetes.io/component"] == "registration"
    ] == [WEBHOOK]


# Consistency


def test_the_server_knows_every_setting(render: Render) -> None:
    options = {option.variable: option for option in settings.SERVE}
    for components in COMBINATIONS.values():
        for name, value in env(render(*components)[DEPLOYMENT]).items():
            options[name].parse(value)


def test_no_api_fixes_the_version_and_creates_no_templates(render: Render) -> None:
    settings = env(render("no-api")[DEPLOYMENT])
    assert settings["INSTASLICE_RESOURCE_API"] != "auto"
    assert settings["INSTASLICE_PROVISION_TEMPLATES"] == "false"


def test_the_grace_period_is_long_enough(render: Render) -> None:
    """It covers the pause before SIGTERM, the server's drain, and a margin."""
    deployment = render()[DEPLOYMENT]
    command = at(deployment, "CONTAINER.lifecycle.preStop.exec.command")
    pause = int(re.fullmatch(r"import time; time\.sleep\((\d+)\)", command[-1])[1])  # type: ignore[index]
    assert pause >= 5
    assert at(deployment, "POD.terminationGracePeriodSeconds") >= pause + Limits().grace + 5


def test_ports_names_and_labels_match(render: Render) -> None:
    rendered = render("cert-manager", "prometheus")
    deployment, service = rendered[DEPLOYMENT], rendered["Service", "instaslice"]
    labels = at(deployment, "spec.template.metadata.labels")
    for selector in (
        at(deployment, "spec.selector.matchLabels"),
        at(service, "spec.selector"),
        at(rendered["PodDisruptionBudget", "instaslice"], "spec.selector.matchLabels"),
        at(rendered["NetworkPolicy", "instaslice"], "spec.podSelector.matchLabels"),
        at(deployment, "POD.topologySpreadConstraints.0.labelSelector.matchLabels"),
        at(deployment, "POD.topologySpreadConstraints.1.labelSelector.matchLabels"),
    ):
        assert selector.items() <= labels.items()
    monitor = rendered["ServiceMonitor", "instaslice"]
    wanted = at(monitor, "spec.selector.matchLabels")
    assert wanted.items() <= service["metadata"]["labels"].items()

    assert len(at(deployment, "POD.containers")) == 1
    (port,) = at(deployment, "CONTAINER.ports")
    (bind,) = [option for option in settings.SERVE if option.flag == "--bind"]
    assert str(port["containerPort"]) == str(bind.default).rpartition(":")[2]
    assert at(service, "spec.ports.0.targetPort") == port["name"]
    assert at(monitor, "spec.endpoints.0.port") == at(service, "spec.ports.0.name")
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert at(deployment, f"CONTAINER.{probe}.httpGet.port") == port["name"]
        assert at(deployment, f"CONTAINER.{probe}.httpGet.scheme") == "HTTPS"

    client = at(rendered[WEBHOOK], "webhooks.0.clientConfig.service")
    assert (client["name"], client["port"], client["path"]) == ("instaslice", 443, "/mutate")
    (volume,) = at(deployment, "POD.volumes")
    (mount,) = at(deployment, "CONTAINER.volumeMounts")
    certificate = rendered["Certificate", "instaslice"]
    assert volume["secret"]["secretName"] == at(certificate, "spec.secretName")
    assert mount == {"name": volume["name"], "mountPath": mount["mountPath"], "readOnly": True}
    assert env(deployment)["INSTASLICE_CERT_DIR"] == mount["mountPath"]


# Monitoring

#: A metric of the API server (apiserver/pkg/admission/metrics).
OF_THE_API_SERVER = {
    "apiserver_admission_webhook_rejection_count",
    "apiserver_admission_webhook_fail_open_count",
    "apiserver_admission_webhook_admission_duration_seconds_bucket",
}


def expressions(rendered: Manifests) -> dict[str, list[str]]:
    """The PromQL expressions, by alert or panel."""
    rules = at(rendered["PrometheusRule", "instaslice"], "spec.groups.0.rules")
    found = {rule["alert"]: [rule["expr"]] for rule in rules}
    dashboard = yaml.safe_load(
        rendered["ConfigMap", "instaslice-dashboard"]["data"]["instaslice.json"]
    )
    for panel in dashboard["panels"]:
        found[panel["title"]] = [target["expr"] for target in panel["targets"]]
    return found


def selectors(expression: str) -> Iterable[tuple[str, dict[str, list[str]]]]:
    """The metrics of an expression, each with the label values that it selects."""
    for name, matchers in re.findall(r"\b((?:instaslice|apiserver)_\w+)(?:\{(.*?)\})?", expression):
        pairs = re.findall(r'(\w+)=~?"([^"]*)"', matchers)
        yield name, {label: values.split("|") for label, values in pairs}


@pytest.fixture(scope="module")
def samples() -> set[tuple[str, frozenset[tuple[str, str]]]]:
    """Every sample of a server that has just started, in a cluster without DRA."""
    metrics = Metrics()
    metrics.show_resource_api(Unavailable("none"))
    families = text_string_to_metric_families(generate_latest(metrics.registry).decode())
    return {
        (sample.name, frozenset(sample.labels.items()))
        for family in families
        for sample in family.samples
    }


def test_alerts_and_panels_use_metrics_that_exist(
    render: Render, samples: set[tuple[str, frozenset[tuple[str, str]]]]
) -> None:
    asked = 0
    for title, texts in expressions(render("prometheus")).items():
        for name, labels in itertools.chain.from_iterable(map(selectors, texts)):
            asked += 1
            if name.startswith("apiserver_"):
                assert name in OF_THE_API_SERVER, title
                assert labels.get("name", ["rewrite.instaslice.io"]) == ["rewrite.instaslice.io"]
                continue
            shown = [dict(pairs) for shown_name, pairs in samples if shown_name == name]
            assert shown, f"{title}: there is no {name}"
            labels.pop("namespace", None)  # a label of the target
            for label, values in labels.items():
                assert set(values) <= {pairs[label] for pairs in shown}, f"{title}: {name}"
    assert asked > 15


def test_every_alert_has_a_severity_and_annotations(render: Render) -> None:
    rules = at(render("prometheus")["PrometheusRule", "instaslice"], "spec.groups.0.rules")
    assert len(rules) >= 8
    for rule in rules:
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
        assert rule["annotations"]["runbook_url"] == f"docs/operations.md#{rule['alert'].lower()}"


def test_the_panel_and_the_alert_have_the_same_expression(render: Render) -> None:
    found = expressions(render("prometheus"))
    (alert,), (panel,) = found["InstaSliceNotReached"], found["Not reached, last hour"]
    assert " ".join(alert.replace("5m", "1h").split()) == f"{panel} > 0"


def test_the_dashboard_has_variables_for_data_source_and_namespace(render: Render) -> None:
    """Every panel uses both; the API server's metrics have no namespace of InstaSlice."""
    rendered = render("prometheus")
    dashboard = yaml.safe_load(
        rendered["ConfigMap", "instaslice-dashboard"]["data"]["instaslice.json"]
    )
    names = [variable["name"] for variable in dashboard["templating"]["list"]]
    assert names == ["datasource", "namespace"]
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            assert panel["datasource"] == target["datasource"]
            assert target["datasource"]["uid"] == "${datasource}"
            for name, labels in selectors(target["expr"]):
                chosen = labels.get("namespace") == ["$namespace"]
                assert chosen == name.startswith("instaslice_"), panel["title"]


@pytest.fixture
def promtool() -> str:
    """The path of promtool, from Debian's package `prometheus`."""
    return find_tool("promtool")


def test_alerts_fire_when_they_should_and_only_then(promtool: str, tmp_path: Path) -> None:
    rules = ROOT / "charts/instaslice/files/alerts.yaml"  # a file of rules, made from config/
    cases = (ROOT / "test/test_alerts.yaml").read_text()
    tried = set(re.findall(r"alertname: (\w+)", cases))
    assert tried == {
        rule["alert"] for rule in yaml.safe_load(rules.read_text())["groups"][0]["rules"]
    }
    (tmp_path / "cases.yaml").write_text(cases.replace("RULES", str(rules)))
    done = subprocess.run(
        [promtool, "test", "rules", tmp_path / "cases.yaml"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
