"""charts/instaslice, rendered by Helm: each value has its effect, and other values are refused."""

import base64
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509

from hack import chart as making
from hack.release import chart_metadata
from instaslice import __version__
from instaslice.serve.settings import SERVE
from instaslice.webhook_configuration import ALL, BESIDE, MODES, OPT_IN, webhook_configuration
from test.support.helm import NONE, Helm, programs
from test.support.manifests import (
    POLICIES,
    as_expected,
    at,
    by_kind_and_name,
    documents,
    expectations,
    kustomize,
    validate,
)

ROOT = Path(__file__).parent.parent
CHART = ROOT / "charts" / "instaslice"
NAMESPACE = "instaslice-system"

Json = dict[str, Any]
Objects = Mapping[tuple[str, str], Json]
Render = Callable[..., list[Json]]

#: The required values.
IMAGE: Json = {"image": {"repository": "instaslice", "tag": "latest"}}

WEBHOOK = ("MutatingWebhookConfiguration", "instaslice")
PEM = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


def with_image(values: Json) -> Json:
    """Add the required values."""
    return {**values, "image": {**IMAGE["image"], **values.get("image", {})}}


@pytest.fixture(scope="session")
def helm() -> Any:
    """Helm's code in a PyPI package (extra `chart`)."""
    if os.environ.get("CI") == "true":
        import helm_python

        return helm_python
    return pytest.importorskip("helm_python", reason="needs the extra `chart`")


@pytest.fixture(scope="session")
def chart(helm: Any) -> Iterator[Any]:
    with helm.Chart.load(CHART) as loaded:
        yield loaded


@pytest.fixture(scope="session")
def render(chart: Any) -> Render:
    """The objects of a release, in no order. values: without the required ones."""

    def render(values: Json | None = None, **options: Any) -> list[Json]:
        texts = chart.render(
            with_image(values or {}), name="instaslice", namespace=NAMESPACE, **options
        )
        manifests = [text for path, text in texts.items() if not path.endswith("NOTES.txt")]
        return [each for text in manifests for each in documents(text)]

    return render


def is_hook(manifest: Json) -> bool:
    return "helm.sh/hook" in manifest["metadata"].get("annotations", {})


def installed(manifests: list[Json]) -> Objects:
    """The objects after an installation: without hooks, except for the final webhook.

    A separate test covers the many device classes.
    """
    return by_kind_and_name(
        manifest
        for manifest in manifests
        if manifest["kind"] != "DeviceClass"
        and (manifest.get("webhooks") or (not is_hook(manifest) and "webhooks" not in manifest))
    )


@pytest.mark.skipif(not programs(), reason=NONE)
@pytest.mark.parametrize("program", programs(), ids=lambda path: path.name)
def test_helm_accepts_the_chart(program: Path, tmp_path: Path, render: Render) -> None:
    """Each major version accepts the chart, and renders the same as the package."""
    own = Helm(program, tmp_path)
    linted = own.run("lint", "--strict", CHART, values=IMAGE)
    assert linted.returncode == 0, linted.stdout
    template = ("template", "instaslice", CHART, f"--namespace={NAMESPACE}")
    made = own.run(*template, values=IMAGE)
    assert made.returncode == 0, made.stderr
    found = documents(made.stdout)
    assert sorted(found, key=str) == sorted(render(), key=str)


# Generated files


@pytest.mark.parametrize("path", making.files(), ids=lambda path: path.name)
def test_generated_files_are_up_to_date(path: Path) -> None:
    assert path.read_text() == making.files()[path], "run `make manifests`"


def test_the_charts_version_is_the_projects(chart: Any) -> None:
    assert (chart.version, chart.metadata["appVersion"]) == (__version__, __version__)


def test_the_defaults_equal_config_default(render: Render) -> None:
    """It compares object by object, except the namespace, which Helm creates."""
    expected = dict(by_kind_and_name(documents(kustomize(ROOT / "config/default"))))
    del expected["Namespace", NAMESPACE]
    rendered = {key: plain(manifest) for key, manifest in installed(render()).items()}
    assert rendered == {key: plain(manifest) for key, manifest in expected.items()}


def plain(manifest: Json) -> Json:
    """Remove what only Helm adds to a manifest."""
    copy: Json = json.loads(json.dumps(manifest))
    for metadata in filter(None, (copy["metadata"], at(copy, "spec.template.metadata"))):
        for key in ("helm.sh/chart", "app.kubernetes.io/instance", "app.kubernetes.io/managed-by"):
            metadata.get("labels", {}).pop(key, None)
        annotations = metadata.pop("annotations", {})
        kept = {k: v for k, v in annotations.items() if not k.startswith("helm.sh/")}
        metadata.update({"annotations": kept} if kept else {})
    return copy


# The effect of each value

COMMON: Json = {"team": "gpu"}

#: Named cases: values, and the expected objects.
CASES: dict[str, Json] = expectations()["chart"]


#: Values that make the chart create every kind of object.
MONITORING = ("serviceMonitor", "podMonitor", "prometheusRule", "grafanaDashboard")
EVERYTHING: Json = {
    **{key: {"enabled": True} for key in MONITORING},
    "clientCA": {"pem": PEM},
    "webhook": {"mode": BESIDE},
}


def leaves(values: Json, prefix: str = "") -> Iterator[str]:
    """The names of values: "image.tag"."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        yield name
        if isinstance(value, dict):
            yield from leaves(value, f"{name}.")


def test_every_value_has_a_case_and_is_in_the_readme() -> None:
    known = {value.name for value in making.values((CHART / "values.yaml").read_text())}
    tried = {name for case in CASES.values() for name in leaves(case["values"])}
    assert known <= tried
    defaults = set(leaves(yaml.safe_load((CHART / "values.yaml").read_text())))
    groups = {name for name in defaults if any(each.startswith(f"{name}.") for each in known)}
    objects = (*(f"{each}." for each in making.WHOLE), "nodeSelector.", "grafanaDashboard.labels.")
    rest = {name for name in defaults - groups if not name.startswith(objects)}
    assert rest <= known, "without a comment in values.yaml"


@pytest.mark.parametrize("case", CASES)
def test_a_value_has_its_effect_and_the_result_is_valid(
    case: str, render: Render, helm: Any
) -> None:
    values, expected = CASES[case]["values"], CASES[case].get("makes", {})
    manifests = render(values)
    assert as_expected(installed(manifests), expected) == expected
    validate(manifests)
    report = helm.lint(CHART, with_image(values), strict=True)
    warnings = [message for message in report["messages"] if message["severity"] > 1]
    assert (warnings, report["errors"]) == ([], [])


def test_every_object_and_pod_has_the_common_labels_and_annotations(render: Render) -> None:
    own: Json = {"team": "mine"}
    values = {**EVERYTHING, "commonLabels": COMMON, "commonAnnotations": COMMON, "podLabels": own}
    for manifest in render(values):
        pods = at(manifest, "spec.template.metadata")
        for metadata in filter(None, (manifest["metadata"], pods)):
            common = {key: metadata[key].get("team") for key in ("labels", "annotations")}
            wins = "mine" if pods is metadata and not is_hook(manifest) else "gpu"
            assert common == {"labels": wins, "annotations": "gpu"}, manifest["metadata"]["name"]


@pytest.mark.parametrize("value", ["nameOverride", "fullnameOverride"])
def test_every_object_and_reference_follows_another_name(value: str, render: Render) -> None:
    manifests = render({**EVERYTHING, value: "other-name"})
    alike = json.loads(json.dumps(manifests).replace("other-name", "instaslice"))
    assert sorted(alike, key=str) == sorted(render(EVERYTHING), key=str)
    rest = {each["metadata"]["name"] for each in manifests if each["kind"] != "DeviceClass"}
    own = {"instaslice-limitranges", "instaslice-service-account", "critical-pods"}
    assert {name for name in rest if not name.startswith("other-name")} == own
    assert "instaslice.instaslice-system" not in json.dumps(manifests)


def test_alerts_link_to_runbooks_if_the_project_has_a_url(
    helm: Any, render: Render, tmp_path: Path
) -> None:
    def annotations(manifests: list[Json]) -> Iterator[Json]:
        (rules,) = [each for each in manifests if each["kind"] == "PrometheusRule"]
        for group in rules["spec"]["groups"]:
            yield from (rule["annotations"] for rule in group["rules"] if "alert" in rule)

    assert not any("runbook_url" in each for each in annotations(render(EVERYTHING)))
    released = tmp_path / "instaslice"
    shutil.copytree(CHART, released)
    (released / "Chart.yaml").write_text(chart_metadata("https://example.com/instaslice"))
    assert helm.lint(released, with_image(EVERYTHING), strict=True)["messages"] == []
    with helm.Chart.load(released) as chart:
        texts = chart.render(with_image(EVERYTHING), name="instaslice", namespace=NAMESPACE)
    rules = documents(texts["instaslice/templates/monitoring.yaml"])
    page = f"https://example.com/instaslice/blob/v{__version__}/docs/operations.md#instaslice"
    links = [each["runbook_url"] for each in annotations(list(rules))]
    assert len(links) == 10
    assert all(link.startswith(page) for link in links)


def test_a_missing_image_is_an_error(chart: Any, helm: Any) -> None:
    with pytest.raises(helm.HelmRenderError, match=r"image\.repository is not set: give the"):
        chart.render({}, name="instaslice", namespace=NAMESPACE)


def test_a_secret_without_a_ca_is_an_error(render: Render, helm: Any) -> None:
    with pytest.raises(helm.HelmRenderError, match=r"tls\.caBundle is not set, and the Secret"):
        render({"tls": {"source": "secret"}})


@pytest.mark.parametrize(
    ("values", "path"),
    [
        ({"image": {"digest": "sha256:0"}}, "/image/digest"),
        ({"image": {"pullPolicy": "always"}}, "/image/pullPolicy"),
        ({"image": {"repository": "a@sha256:0"}}, "/image/repository"),
        ({"webhook": {"mode": "some"}}, "/webhook/mode"),
        ({"webhook": {"failurePolicy": "fail"}}, "/webhook/failurePolicy"),
        ({"webhook": {"timeoutSeconds": 31}}, "/webhook/timeoutSeconds"),
        ({"webhook": {"namespaceSelector": {"team": "ml"}}}, "/webhook/namespaceSelector"),
        ({"mappedResources": {"cpu": "c"}}, "/mappedResources"),
        ({"mappedResources": {"nvidia.com/gpu": ""}}, "/mappedResources/nvidia.com"),
        ({"mappedResources": ["nvidia.com/gpu=gpu.nvidia.com"]}, "/mappedResources"),
        ({"resourceAPI": "v2"}, "/resourceAPI"),
        ({"provisionTemplates": "yes"}, "/provisionTemplates"),
        ({"tls": {"source": "self-signed"}}, "/tls/source"),
        ({"tls": {"caBundle": "LS0tLS1CRUdJTg=="}}, "/tls/caBundle"),
        ({"replicas": 0}, "/replicas"),
        ({"threads": "4"}, "/threads"),
        ({"logLevel": "debug"}, "/logLevel"),
        ({"podDisruptionBudget": {"minAvailable": "half"}}, "/podDisruptionBudget/minAvailable"),
        ({"networkPolicy": {"apiServer": {"cidrs": ["192.0.2.1"]}}}, "/networkPolicy/apiServer"),
        ({"networkPolicy": {"apiServer": {"ports": []}}}, "/networkPolicy/apiServer/ports"),
        ({"replicaCount": 3}, "replicaCount"),
        ({"nameOverride": "1st"}, "/nameOverride"),
        ({"fullnameOverride": "a.b"}, "/fullnameOverride"),
        ({"global": {"imageRegistry": "example.com/"}}, "/global/imageRegistry"),
        ({"service": {"type": "ExternalName"}}, "/service/type"),
        ({"extraObjects": {}}, "/extraObjects"),
        ({"podLabels": {"app.kubernetes.io/name": "mine"}}, "app.kubernetes.io/name"),
        ({"podMonitor": {"enable": True}}, "/podMonitor"),
    ],
    ids=str,
)
def test_the_schema_refuses_wrong_values(values: Json, path: str, chart: Any, helm: Any) -> None:
    with pytest.raises(helm.HelmValuesError) as refused:
        chart.validate_schema(with_image(values))
    assert path in str(refused.value)


def test_every_setting_of_the_server_has_a_value() -> None:
    text = (CHART / "templates/deployment.yaml").read_text()
    lacking = {option.variable for option in SERVE if f"name: {option.variable}\n" not in text}
    assert lacking == {"INSTASLICE_KUBECONFIG"}


# The webhook


@pytest.mark.parametrize("mapped", [{}, {"nvidia.com/gpu": "a", "amd.com/gpu": "b"}], ids=len)
@pytest.mark.parametrize("mode", MODES)
def test_the_webhook_equals_the_output_of_the_command(
    mode: str, mapped: Json, render: Render
) -> None:
    values = {"webhook": {"mode": mode}, "mappedResources": mapped}
    rendered = installed(render(values))[WEBHOOK]["webhooks"]
    assert rendered == webhook_configuration(mode, mapped)["webhooks"]


def test_policies_have_the_releases_account_and_mapping(render: Render) -> None:
    """They name its service account and its mapped resources."""
    values = {"mappedResources": {"nvidia.com/gpu": "gpu.nvidia.com", "a.b/c": "d"}}
    mapped = [each for each in render(values) if each["kind"] in POLICIES]
    assert len(mapped) == 4
    text = json.dumps(mapped)
    assert text.count("dyn({'a.b/c':'d', 'nvidia.com/gpu':'gpu.nvidia.com'})") == 2
    account = "system:serviceaccount:instaslice-system:instaslice"
    assert f"request.userInfo.username == '{account}'" in text


@pytest.mark.parametrize(("kubernetes", "there_are"), [("1.29.9", False), ("1.30.0-gke.1", True)])
def test_there_are_no_policies_before_kubernetes_1_30(
    kubernetes: str, there_are: bool, tmp_path: Path
) -> None:
    """This needs Helm itself, since the package renders for only one version."""
    if not (found := programs()):
        pytest.skip(NONE)
    options = ("--kube-version", kubernetes, "--set", "image.repository=i")
    done = Helm(found[0], tmp_path).run("template", "instaslice", CHART, *options)
    assert done.returncode == 0, done.stderr
    assert ("kind: ValidatingAdmissionPolicy" in done.stdout) == there_are


def test_device_classes_come_only_with_beside_the_scheduler_and_are_kept(render: Render) -> None:
    def classes(mode: str) -> list[Json]:
        manifests = render({"webhook": {"mode": mode}})
        return [each for each in manifests if each["kind"] == "DeviceClass"]

    assert classes(ALL) == classes(OPT_IN) == []
    beside = classes(BESIDE)
    expected = (ROOT / "config/components/beside-the-scheduler/deviceclasses.yaml").read_text()
    assert [plain(each) for each in beside] == [plain(each) for each in documents(expected)]
    keeps = {each["metadata"]["annotations"]["helm.sh/resource-policy"] for each in beside}
    assert keeps == {"keep"}


def test_the_webhook_is_empty_until_the_server_is_ready(render: Render) -> None:
    """The release has an empty object, which a hook replaces once the server is ready."""
    manifests = render()
    (waiting, sending) = [each for each in manifests if (each["kind"], "instaslice") == WEBHOOK]
    (job,) = [each for each in manifests if each["kind"] == "Job"]
    assert waiting["webhooks"] == []
    assert not is_hook(waiting)
    hooks = "post-install,post-upgrade,post-rollback"
    for manifest, weight in ((job, "0"), (sending, "1")):
        assert manifest["metadata"]["annotations"]["helm.sh/hook"] == hooks
        assert manifest["metadata"]["annotations"]["helm.sh/hook-weight"] == weight


def test_the_service_does_not_select_the_pods_of_hooks(render: Render) -> None:
    (service,) = [each for each in render() if each["kind"] == "Service"]
    for manifest in render():
        if is_hook(manifest) and manifest["kind"] in ("Job", "Pod"):
            metadata = at(manifest, "spec.template.metadata") or manifest["metadata"]
            assert not service["spec"]["selector"].items() <= metadata["labels"].items()


def test_the_webhook_trusts_the_certificate_that_the_chart_makes(render: Render) -> None:
    objects = installed(render(CASES["a certificate that the chart makes"]["values"]))
    data = {k: base64.b64decode(v) for k, v in objects["Secret", "instaslice-tls"]["data"].items()}
    authority = x509.load_pem_x509_certificate(data["ca.crt"])
    certificate = x509.load_pem_x509_certificate(data["tls.crt"])
    certificate.verify_directly_issued_by(authority)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "instaslice.instaslice-system.svc" in names.get_values_for_type(x509.DNSName)
    assert (certificate.not_valid_after_utc - certificate.not_valid_before_utc).days == 30
    trusted = at(objects[WEBHOOK], "webhooks.0.clientConfig.caBundle")
    assert base64.b64decode(trusted) == data["ca.crt"]


def test_the_notes_say_what_to_do_next(chart: Any) -> None:
    def notes(**values: Any) -> str:
        texts = chart.render({**IMAGE, **values}, name="i", namespace="gpu")
        return str(texts["instaslice/templates/NOTES.txt"])

    assert "helm test i -n gpu" in notes()
    assert "kubectl delete mutatingwebhookconfiguration instaslice" in notes()
    assert "instaslice.io/rewrite=enabled" in notes(webhook={"mode": OPT_IN})
    assert "delete secret instaslice-tls" in notes(tls={"source": "generated"})
