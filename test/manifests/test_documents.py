"""What becomes of streams of manifests, and of the files that hold them."""

import io
import json
import os
import re
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import jsonpatch
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from instaslice.cli.main import main
from instaslice.cli.usage import wants_colour
from instaslice.manifests import files
from instaslice.manifests.documents import missing, rewrite_stream
from instaslice.resource_api import NEWEST, VERSIONS
from instaslice.rewrite import rewrite
from test.support import pods

Json = dict[str, Any]

SPEC: Json = {
    "containers": [{"name": "c", "resources": {"limits": {"nvidia.com/mig-1g.5gb": 1}}}],
}
SAMPLE = Path(__file__).parents[2] / "samples" / "sample.yaml"

#: Where a pod template is, by kind.
KINDS: dict[str, tuple[str, ...]] = {
    "Pod": (),
    "PodTemplate": ("template",),
    "Deployment": ("spec", "template"),
    "StatefulSet": ("spec", "template"),
    "DaemonSet": ("spec", "template"),
    "ReplicaSet": ("spec", "template"),
    "ReplicationController": ("spec", "template"),
    "Job": ("spec", "template"),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
    "Rollout": ("spec", "template"),  # unknown to Kubernetes
}


def dedent(text: str) -> str:
    return textwrap.dedent(text.removeprefix("\n"))


def names() -> Callable[[], str]:
    numbers = count(1)
    return lambda: f"claim-{next(numbers)}"


def wrapped(kind: str, pod: Json) -> Json:
    """A manifest of a kind with the pod as its template."""
    inner: Json = {"spec": pod["spec"]}
    for step in reversed(KINDS[kind]):
        inner = {step: inner}
    return {"kind": kind, "metadata": {"name": "x"}, **inner}


def rewritten(text: str) -> list[Any]:
    documents = rewrite_stream(text, NEWEST, names())
    assert not any(document.errors for document in documents)
    return [d.value for d in documents if d.value is not None]


@pytest.mark.property
@pods.FEWER
@given(pod=pods.pods(), kind=st.sampled_from([*KINDS]))
def test_a_template_is_rewritten_as_the_pod_is(pod: Json, kind: str) -> None:
    manifest = wrapped(kind, pod)
    operations = rewrite(pod, NEWEST, names()).operations
    template = wrapped(kind, jsonpatch.apply_patch(pod, operations))
    for text in (json.dumps(manifest), yaml.safe_dump(manifest, sort_keys=False)):
        (document,) = rewrite_stream(text, NEWEST, names())
        assert document.errors == []
        assert document.value == template
        assert yaml.safe_load(document.after) == template
        assert jsonpatch.apply_patch(manifest, document.operations) == template
        again = rewrite_stream(document.after, NEWEST)
        assert all(document.after == document.before for document in again)


def test_lists_are_looked_into() -> None:
    pod = {"kind": "Pod", "spec": SPEC}
    inner = {"kind": "PodList", "items": [pod]}
    (value,) = rewritten(yaml.safe_dump({"kind": "List", "items": [None, pod, inner]}))
    claims = [{"name": "claim-1"}], [{"name": "claim-2"}]
    assert value["items"][1]["spec"]["containers"][0]["resources"]["claims"] == claims[0]
    assert (
        value["items"][2]["items"][0]["spec"]["containers"][0]["resources"]["claims"] == (claims[1])
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "# nothing\n",
        "---\n---\n...\n",
        "kind: ConfigMap\ndata: {a: 'nvidia.com/mig-1g.5gb: 1'}\n",
        "kind: ConfigMap\ndata:\n  a: |\n    ---\n    kind: Pod\n",
        "%YAML 1.1\n---   # first\na:   ~\n---\n\nb: [ 1 ]",
        '{"kind": "List",\n"items":   []}',
        "kind: Deployment\nspec: {template: 1}\n",
        "kind: Pod\r\nspec: {}\r\n",
        "\ufeffa: 1\n",
    ],
)
def test_what_does_not_change_stays_to_the_byte(text: str) -> None:
    documents = rewrite_stream(text, NEWEST)
    assert [d.errors for d in documents if d.errors] == []
    assert "".join(d.before for d in documents) == text
    assert "".join(d.after for d in documents) == text


@given(text=st.text(alphabet="-.#{}[]:&*!|> \n\r\ta%\"'\ufeff\x00\u2028é"))
def test_any_text_is_handled(text: str) -> None:
    documents = rewrite_stream(text, NEWEST)
    assert "".join(d.before for d in documents) == text
    for document in documents:
        assert 1 <= document.line <= text.count("\n") + 1
        for error in document.errors:
            assert "\n" not in str(error)


def test_each_document_keeps_its_surroundings() -> None:
    text = dedent("""
        # head
        kind: ConfigMap
        ---   # second
        # about the pod
        kind: Pod
        spec:
          containers:
          - name: a
            resources: {limits: {nvidia.com/mig-1g.5gb: 1}}

        # between
        ---
        other:   true
        ...
        # the end
    """)
    after = "".join(d.after for d in rewrite_stream(text, NEWEST, names()))
    assert after == dedent("""
        # head
        kind: ConfigMap
        ---   # second
        # about the pod
        kind: Pod
        spec:
          containers:
          - name: a
            resources: {claims: [{name: claim-1}]}
          resourceClaims:
          - name: claim-1
            resourceClaimTemplateName: mig-1g.5gb

        # between
        ---
        other:   true
        ...
        # the end
    """)


def test_lines_keep_their_ends() -> None:
    text = yaml.safe_dump({"kind": "Pod", "spec": SPEC}).replace("\n", "\r\n")
    (document,) = rewrite_stream(text, NEWEST)
    assert document.changed
    assert document.after.count("\n") == document.after.count("\r\n")


@pytest.mark.parametrize("indent", [None, 2, 4, "\t"])
def test_json_keeps_its_layout(indent: int | str | None) -> None:
    pod = {"kind": "Pod", "metadata": {"name": "ü"}, "spec": SPEC}
    text = json.dumps(pod, indent=indent, ensure_ascii=False) + "\n"
    (document,) = rewrite_stream(text, NEWEST, names())
    assert document.after == (json.dumps(document.value, indent=indent, ensure_ascii=False) + "\n")
    compact = json.dumps(pod, separators=(",", ":"), ensure_ascii=False)
    (document,) = rewrite_stream(compact, NEWEST, names())
    assert document.after == json.dumps(document.value, separators=(",", ":"), ensure_ascii=False)


def test_an_error_is_named_by_line_and_path() -> None:
    text = dedent("""
        kind: ConfigMap
        ---
        kind: CronJob
        spec:
          jobTemplate:
            spec:
              template:
                spec:
                  containers:
                  - name: a
                  - name: b
                    resources:
                      limits:
                        cpu: 1
                        nvidia.com/mig-1g.5gb: 500m
        ---
        kind: List
        items:
        - kind: Pod
          spec:
            containers:
            - resources: {requests: {nvidia.com/mig-1g.5gb: 1}}
        ---
        kind: Pod
        spec: {containers: 1}
        ---
        - kind: Pod
        ---
        a: 1
        a: 2
    """)
    documents = rewrite_stream(text, NEWEST)
    template = "spec.jobTemplate.spec.template"
    assert [(e.line, str(e)) for d in documents for e in d.errors] == [
        (
            15,
            f"{template}.spec.containers[1].resources.limits[nvidia.com/mig-1g.5gb]: "
            'Invalid value: "500m": must be an integer',
        ),
        (
            22,
            "items[0].spec.containers[0].resources.limits: "
            "Required value: Limit must be set for non overcommitable resources",
        ),
        (25, "spec.containers: must be an array"),
        (27, "is not an object, as every manifest is"),
        (30, 'found duplicate key "a" with value "2" (original value: "1")'),
    ]
    assert all(d.after == d.before for d in documents)


def test_warnings_are_those_of_the_webhook() -> None:
    limits = {"nvidia.com/mig-9g.999gb": 1, "nvidia.com/mig-1g.5gb.shared": 1}
    pod = {"kind": "Pod", "spec": {"containers": [{"resources": {"limits": limits}}]}}
    (document,) = rewrite_stream(yaml.safe_dump(pod), NEWEST)
    assert [str(w) for w in document.warnings] == rewrite(pod, NEWEST).warnings


def test_the_templates_that_are_missing() -> None:
    text = dedent("""
        kind: Pod
        metadata: {namespace: a}
        spec:
          containers:
          - resources: {limits: {nvidia.com/mig-1g.5gb: 2, nvidia.com/mig-3g.20gb: 1}}
        ---
        kind: Pod
        spec:
          containers: []
          resourceClaims:
          - {name: x, resourceClaimTemplateName: mig-1g.5gb.me}
          - {name: y, source: {resourceClaimTemplateName: mig-2g.10gb}}
          - {name: z, resourceClaimTemplateName: theirs}
        ---
        kind: ResourceClaimTemplate
        metadata: {name: mig-3g.20gb, namespace: a}
    """)
    documents = rewrite_stream(text, NEWEST)
    assert [(t.namespace, t.profile.template) for t in missing(documents)] == [
        ("a", "mig-1g.5gb"),
        (None, "mig-1g.5gb.me"),
        (None, "mig-2g.10gb"),
    ]


# The command.


def run(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = main(["rewrite", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def nameless(text: str) -> str:
    return re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "UUID", text)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a good file, one that needs nothing and a bad one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.yaml").write_text(yaml.safe_dump({"kind": "Pod", "spec": SPEC}))
    (tmp_path / "done.yaml").write_text("kind: ConfigMap   # as it is")
    (tmp_path / "bad.yaml").write_text(
        "kind: Pod\nspec: {containers: [{resources: {limits: {nvidia.com/mig-1g.5gb: -1}}}]}\n"
        "---\n" + (tmp_path / "good.yaml").read_text()
    )
    return tmp_path


def test_the_sample(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(str(SAMPLE), capsys=capsys)
    assert (code, err) == (0, "")
    text = SAMPLE.read_text()
    claim = "      claims:\n      - name: UUID\n"
    limit = "      limits:\n        nvidia.com/mig-1g.5gb: 1\n"
    assert nameless(out) == text.replace(limit, claim) + (
        "  resourceClaims:\n  - name: UUID\n    resourceClaimTemplateName: mig-1g.5gb\n"
    )
    (name,) = set(re.findall(r"[0-9a-f]{8}-[0-9a-f-]{27}", out))
    assert name[14] == "4"


def test_the_claims_of_the_oldest_version(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(str(SAMPLE), "--resource-api", "v1alpha2", capsys=capsys)
    (claim,) = yaml.safe_load(out)["spec"]["resourceClaims"]
    assert claim["source"] == {"resourceClaimTemplateName": "mig-1g.5gb"}


def test_files_become_one_stream(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run("done.yaml", "good.yaml", "done.yaml", capsys=capsys)
    assert (code, err) == (0, "")
    done = {"kind": "ConfigMap"}
    first, second, third = yaml.safe_load_all(out)
    assert (first, second["kind"], third) == (done, "Pod", done)


def test_standard_input(folder: Path) -> None:
    text = (folder / "good.yaml").read_text()
    for names_ in ([], ["-"]):
        command = [sys.executable, "-m", "instaslice", "rewrite", *names_]
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
        assert "resourceClaims" in yaml.safe_load(done.stdout)["spec"]


def test_output_as_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run("-o", "json", "good.yaml", capsys=capsys)
    assert json.loads(out)["kind"] == "Pod"
    _, out, _ = run("-o", "json", "good.yaml", "done.yaml", capsys=capsys)
    whole = json.loads(out)
    assert (whole["apiVersion"], whole["kind"]) == ("v1", "List")
    assert [item["kind"] for item in whole["items"]] == ["Pod", "ConfigMap"]


def test_output_as_patches(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run("-o", "patch", "good.yaml", "done.yaml", capsys=capsys)
    patch, nothing = map(json.loads, out.splitlines())
    assert nothing == []
    _, out, _ = run("good.yaml", capsys=capsys)
    before = yaml.safe_load((folder / "good.yaml").read_text())
    assert nameless(str(jsonpatch.apply_patch(before, patch))) == nameless(str(yaml.safe_load(out)))


def test_a_diff(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run("--diff", "good.yaml", "done.yaml", capsys=capsys)
    assert (code, err) == (0, "")
    assert nameless(out) == dedent("""
        --- a/good.yaml
        +++ b/good.yaml
        @@ -3,5 +3,8 @@
           containers:
           - name: c
             resources:
        -      limits:
        -        nvidia.com/mig-1g.5gb: 1
        +      claims:
        +      - name: UUID
        +  resourceClaims:
        +  - name: UUID
        +    resourceClaimTemplateName: mig-1g.5gb
    """)


def test_a_diff_is_coloured_on_a_terminal(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    files.run(["good.yaml"], files.Options(NEWEST, diff=True, colour=True), out, io.StringIO())
    assert "\x1b[31m-      limits:\x1b[0m\n" in out.getvalue()

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert wants_colour(Terminal())
    assert not wants_colour(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not wants_colour(Terminal())


def test_check(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--check", "done.yaml", capsys=capsys) == (0, "", "")
    line = "good.yaml: would be rewritten\n"
    assert run("--check", "good.yaml", "done.yaml", capsys=capsys) == (1, "", line)
    code, out, _ = run("--check", "--diff", "good.yaml", capsys=capsys)
    assert (code, out[:9]) == (1, "--- a/goo")
    code, _, err = run("--check", "bad.yaml", capsys=capsys)
    assert (code, err.splitlines()[0]) == (
        2,
        "bad.yaml:2: spec.containers[0].resources.limits[nvidia.com/mig-1g.5gb]: "
        'Invalid value: "-1": must be greater than or equal to 0',
    )


def test_a_bad_document_takes_nothing_with_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "latin.yaml").write_bytes(b"a: \xe9\n")
    names_ = ["bad.yaml", "missing.yaml", "latin.yaml", ".", "good.yaml"]
    code, out, err = run(*names_, capsys=capsys)
    assert code == 2
    assert [document["kind"] for document in yaml.safe_load_all(out)] == ["Pod", "Pod"]
    assert len(err.splitlines()) == 4
    assert "instaslice: missing.yaml: No such file or directory\n" in err
    assert "instaslice: latin.yaml: is not UTF-8 at byte 3\n" in err
    assert "instaslice: .: Is a directory\n" in err
    assert err.splitlines()[-1].startswith("bad.yaml:2: spec.containers[0]")


def test_in_place(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "good.yaml").chmod(0o640)
    (folder / "link.yaml").symlink_to("good.yaml")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    code, out, err = run("-i", "bad.yaml", "done.yaml", "link.yaml", capsys=capsys)
    assert (code, out, err.splitlines()[-1]) == (2, "", "link.yaml: rewritten")
    assert (folder / "link.yaml").is_symlink()
    assert "resourceClaims" in yaml.safe_load((folder / "good.yaml").read_text())["spec"]
    assert stat.S_IMODE((folder / "good.yaml").stat().st_mode) == 0o640
    for name in ("bad.yaml", "done.yaml"):
        assert (folder / name).read_bytes() == before[name]
    assert sorted(path.name for path in folder.iterdir()) == sorted(before)
    assert run("-i", "link.yaml", capsys=capsys) == (0, "", "")


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_file_is_written_whole_or_not_at_all(
    folder: Path, failing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr(os, failing, fail)
    line = "instaslice: good.yaml: No space left on device\n"
    assert run("-i", "good.yaml", capsys=capsys) == (2, "", line)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["-i"], "--in-place needs the names of files, and not standard input"),
        (["-i", "a", "-"], "--in-place needs the names of files, and not standard input"),
        (["-i", "--check", "a"], "--in-place and --check exclude one another"),
    ],
)
def test_flags_that_make_no_sense(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments, capsys=capsys) == (2, "", f"instaslice: {line}\n")


@pytest.mark.parametrize("version", VERSIONS)
def test_with_templates(folder: Path, version: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--with-templates", "--resource-api", version]
    code, out, err = run(*arguments, "good.yaml", "good.yaml", capsys=capsys)
    assert (code, err) == (0, "")
    *_, template = values = list(yaml.safe_load_all(out))
    assert [value["kind"] for value in values[:2]] == ["Pod", "Pod"]
    assert template["kind"] == "ResourceClaimTemplate"
    assert template["apiVersion"] == f"resource.k8s.io/{version}"
    assert template["metadata"]["name"] == "mig-1g.5gb"
    assert [value["kind"] for value in values].count("ResourceClaimTemplate") == 1
    (folder / "good.yaml").write_text(out)
    assert run(*arguments, "--check", "good.yaml", capsys=capsys) == (0, "", "")


def test_no_templates_are_appended_to_json(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = json.dumps({"kind": "Pod", "spec": SPEC})
    (folder / "pod.json").write_text(before)
    line = "instaslice: pod.json: templates cannot be appended to JSON\n"
    assert run("-i", "--with-templates", "pod.json", capsys=capsys) == (2, "", line)
    assert (folder / "pod.json").read_text() == before
    code, out, _ = run("-o", "json", "--with-templates", "pod.json", capsys=capsys)
    kinds = [item["kind"] for item in json.loads(out)["items"]]
    assert (code, kinds) == (0, ["Pod", "ResourceClaimTemplate"])


def test_the_extra_is_named_where_it_is_missing() -> None:
    program = (
        "import sys; sys.modules['ruamel.yaml'] = None; from instaslice.cli.main import main; "
        "sys.exit(main(['rewrite', '-']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    line = "instaslice: rewrite needs ruamel.yaml: pip install 'instaslice[cli]'\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line)
