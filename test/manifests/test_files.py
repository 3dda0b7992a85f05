"""`rewrite` on files: its output, and the files on the disk."""

import json
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonpatch
import pytest
import yaml

from instaslice.cli.main import main
from instaslice.resource_api import VERSIONS
from test.support.command import instaslice
from test.support.streams import dedent, nameless

Json = dict[str, Any]

RESOURCES: Json = {"limits": {"nvidia.com/mig-1g.5gb": 1}}
SPEC: Json = {"containers": [{"name": "c", "resources": RESOURCES}]}
SAMPLE = Path(__file__).parents[2] / "samples" / "sample.yaml"
#: The message for a result that needs a template.
NEEDS = (
    "instaslice: the result needs templates: mig-1g.5gb "
    "(append them with --with-templates, or have the webhook make them)\n"
)


#: Runs `rewrite`, and returns its exit code, standard output and standard error.
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(["rewrite", *arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a good file, one without changes and a bad one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.yaml").write_text(yaml.safe_dump({"kind": "Pod", "spec": SPEC}))
    (tmp_path / "done.yaml").write_text("kind: ConfigMap   # as it is")
    (tmp_path / "bad.yaml").write_text(
        "kind: Pod\nspec: {containers: [{resources: {limits: {nvidia.com/mig-1g.5gb: -1}}}]}\n"
        "---\n" + (tmp_path / "good.yaml").read_text()
    )
    return tmp_path


def test_the_sample(run: Run) -> None:
    code, out, err = run(str(SAMPLE))
    assert (code, err) == (0, NEEDS)
    text = SAMPLE.read_text()
    claim = "      claims:\n      - name: UUID\n"
    limit = "      limits:\n        nvidia.com/mig-1g.5gb: 1\n"
    assert nameless(out) == text.replace(limit, claim) + (
        "  resourceClaims:\n  - name: UUID\n    resourceClaimTemplateName: mig-1g.5gb\n"
    )
    (name,) = set(re.findall(r"[0-9a-f]{8}-[0-9a-f-]{27}", out))
    assert name[14] == "5"
    assert run(str(SAMPLE))[1] == out


def test_standard_input(folder: Path) -> None:
    text = (folder / "good.yaml").read_text()
    for names_ in ([], ["-"]):
        done = instaslice("rewrite", *names_, stdin=text)
        assert (done.code, done.err) == (0, NEEDS)
        assert "resourceClaims" in yaml.safe_load(done.out)["spec"]


def test_output_for_programs(folder: Path, run: Run) -> None:
    result = yaml.safe_load(run("good.yaml")[1])
    assert json.loads(run("-o", "json", "good.yaml")[1]) == result
    whole = json.loads(run("-o", "json", "good.yaml", "done.yaml")[1])
    assert whole == {"apiVersion": "v1", "kind": "List", "items": [result, {"kind": "ConfigMap"}]}
    patch, nothing = map(json.loads, run("-o", "patch", "good.yaml", "done.yaml")[1].splitlines())
    before = yaml.safe_load((folder / "good.yaml").read_text())
    assert (jsonpatch.apply_patch(before, patch), nothing) == (result, [])


def test_a_diff(folder: Path, run: Run) -> None:
    code, out, err = run("--diff", "good.yaml", "done.yaml")
    assert (code, err) == (0, NEEDS)
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


def test_check_with_a_diff(folder: Path, run: Run) -> None:
    line = "good.yaml: would be rewritten\n"
    assert run("--check", "good.yaml", "done.yaml") == (1, "", line)
    code, out, err = run("--check", "--diff", "good.yaml")
    assert (code, out[:9], err) == (1, "--- a/goo", "")


def test_hook_of_pre_commit(folder: Path, run: Run) -> None:
    (hook,) = yaml.safe_load((SAMPLE.parents[1] / ".pre-commit-hooks.yaml").read_text())
    assert hook["require_serial"], "a patch is read together with its base"
    _, _, *options = hook["entry"].split()
    assert [run(*options, name)[0] for name in ("good.yaml", "done.yaml")] == [1, 0]


def test_bad_document_does_not_affect_others(folder: Path, run: Run) -> None:
    (folder / "latin.yaml").write_bytes(b"a: \xe9\n")
    names_ = ["bad.yaml", "missing.yaml", "latin.yaml", "good.yaml"]
    code, out, err = run(*names_)
    assert code == 2
    assert [document["kind"] for document in yaml.safe_load_all(out)] == ["Pod", "Pod"]
    missing, bad, latin, needs = err.splitlines(keepends=True)
    assert bad.startswith("bad.yaml:2: spec.containers[0]")
    assert missing == "instaslice: missing.yaml: No such file or directory\n"
    assert latin == "latin.yaml:1: is not UTF-8 at byte 3\n"
    assert needs == NEEDS


def test_in_place(folder: Path, run: Run) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    code, out, err = run("-i", "bad.yaml", "done.yaml", "good.yaml")
    assert (code, out, err.splitlines()[-2]) == (2, "", "good.yaml: rewritten")
    assert "resourceClaims" in yaml.safe_load((folder / "good.yaml").read_text())["spec"]
    for name in ("bad.yaml", "done.yaml"):
        assert (folder / name).read_bytes() == before[name]
    assert sorted(path.name for path in folder.iterdir()) == sorted(before)
    assert run("-i", "good.yaml") == (0, "", "")


@pytest.mark.parametrize("version", VERSIONS)
def test_with_templates(folder: Path, version: str, run: Run) -> None:
    arguments = ["--with-templates", "--resource-api", version]
    code, out, err = run(*arguments, "good.yaml", "good.yaml")
    assert (code, err) == (0, "")
    *_, template = values = list(yaml.safe_load_all(out))
    assert [value["kind"] for value in values[:2]] == ["Pod", "Pod"]
    assert template["kind"] == "ResourceClaimTemplate"
    assert template["apiVersion"] == f"resource.k8s.io/{version}"
    assert template["metadata"]["name"] == "mig-1g.5gb"
    assert [value["kind"] for value in values].count("ResourceClaimTemplate") == 1
    (folder / "good.yaml").write_text(out)
    assert run(*arguments, "--check", "good.yaml") == (0, "", "")


def test_no_templates_are_appended_to_json(folder: Path, run: Run) -> None:
    before = json.dumps({"kind": "Pod", "spec": SPEC})
    (folder / "pod.json").write_text(before)
    line = "instaslice: pod.json: templates cannot be appended to JSON\n"
    assert run("-i", "--with-templates", "pod.json") == (2, "", line)
    assert (folder / "pod.json").read_text() == before
    code, out, _ = run("-o", "json", "--with-templates", "pod.json")
    kinds = [item["kind"] for item in json.loads(out)["items"]]
    assert (code, kinds) == (0, ["Pod", "DeviceClass", "ResourceClaimTemplate"])


LEFT = "apiVersion: a.b/v1\nkind: X\nspec: {limits: {nvidia.com/mig-1g.5gb: 1}}\n"
UNKNOWN = "kind: Pod\nspec: {containers: [{resources: {limits: {nvidia.com/mig-9g.999gb: 1}}}]}\n"
OFF = (
    "kind: Pod\nmetadata: {labels: {instaslice.io/rewrite: disabled}}\n"
    "spec: {containers: [{resources: {limits: {nvidia.com/mig-1g.5gb: 1}}}]}\n"
)


@pytest.mark.parametrize(
    ("names", "code"),
    [
        ("done", 0),
        ("off", 0),
        ("unknown", 1),
        ("done good", 1),
        ("good done", 1),
        ("left", 3),
        ("good left done", 3),
        ("bad left good", 2),
        ("left bad", 2),
        ("missing left good", 2),
        ("left good missing", 2),
    ],
)
def test_the_worst_exit_code_counts(folder: Path, names: str, code: int, run: Run) -> None:
    (folder / "left.yaml").write_text(LEFT)
    (folder / "unknown.yaml").write_text(UNKNOWN)
    (folder / "off.yaml").write_text(OFF)
    paths = [f"{name}.yaml" for name in names.split()]
    assert run("--check", *paths)[0] == code
    # Without --check there are only two codes; with --strict, limits that are left are errors.
    assert run(*paths)[0] == (2 if code == 2 else 0)
    strict = 2 if code in (2, 3) else 0
    assert run("--strict", *paths)[0] == strict


@pytest.mark.parametrize("option", [[], ["--check"], ["--diff"], ["-i"]])
def test_warnings_and_notes_are_printed(folder: Path, option: list[str], run: Run) -> None:
    (folder / "all.yaml").write_text("---\n".join([LEFT, UNKNOWN, OFF]))
    left, unknown, note, *_ = run(*option, "all.yaml")[2].splitlines()
    assert left.startswith("all.yaml:3: warning: spec.limits[nvidia.com/mig-1g.5gb]: left as")
    path = "spec.containers[0].resources.limits[nvidia.com/mig-9g.999gb]"
    assert unknown.startswith(f"all.yaml:6: warning: {path}: InstaSlice knows no GPU")
    label = "has the label instaslice.io/rewrite: disabled"
    assert note == f"all.yaml:8: note: left as it is: it {label}"


def limited(count: int) -> str:
    """A pod with a number of profiles."""
    limits = ", ".join(f"nvidia.com/mig-{n}g.5gb: 1" for n in range(1, count + 1))
    return f"kind: Pod\nspec: {{containers: [{{resources: {{limits: {{{limits}}}}}}}]}}\n"


@pytest.mark.parametrize(("count", "more"), [(10, " and 2 more"), (8, "")])
def test_needed_templates_are_named(folder: Path, count: int, more: str, run: Run) -> None:
    (folder / "many.yaml").write_text(limited(count))
    needs = run("many.yaml")[2].splitlines()[-1]
    assert needs.startswith("instaslice: the result needs templates: mig-1g.5gb, mig-2g.5gb, ")
    assert f"mig-8g.5gb{more} (append them" in needs
    for quiet in (["--check"], ["--with-templates"]):
        assert "needs templates" not in run(*quiet, "good.yaml")[2]
    # Templates in the files are not missing.
    _, out, _ = run("--with-templates", "good.yaml")
    (folder / "templates.yaml").write_text(out.partition("---\n")[2])
    assert run("--diff", "good.yaml", "templates.yaml")[2] == ""


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_unreadable_folder(folder: Path, run: Run) -> None:
    (folder / "inner").mkdir(mode=0)
    assert run("inner") == (2, "", "instaslice: inner: Permission denied\n")


def test_folder_is_walked(folder: Path, run: Run) -> None:
    inner = folder / "inner" / "deeper"
    inner.mkdir(parents=True)
    pod = {"kind": "Pod", "spec": SPEC}
    for name in ("b.yml", "a.json", "c.txt", ".d.yaml"):
        (inner / name).write_text(json.dumps(pod))
    (folder / ".git").mkdir()
    (folder / ".git" / "e.yaml").write_text(json.dumps(pod))
    code, _, err = run("--check", "inner", ".git/e.yaml", "good.yaml")
    names = [".git/e.yaml", "good.yaml"]
    assert code == 1
    assert err.splitlines() == [
        f"{name}: would be rewritten"
        for name in ["inner/deeper/a.json", "inner/deeper/b.yml", *names]
    ]
    assert ".git" not in run("--check", ".")[2]
    line = "instaslice: .git/none: has no file that ends in .yaml or .yml or .json\n"
    (folder / ".git" / "none").mkdir()
    assert run("-o", "patch", ".git/none") == (0, "", line)


def test_templates_in_a_separate_file(folder: Path, run: Run) -> None:
    def there() -> list[str]:
        every = yaml.safe_load_all((folder / "templates.yaml").read_text())
        return [each["metadata"]["name"] for each in every]

    arguments = ("--templates-to", "templates.yaml", "good.yaml")
    code, out, err = run("-i", *arguments)
    assert (code, out, err) == (0, "", "templates.yaml: written\ngood.yaml: rewritten\n")
    assert there() == ["mig-1g.5gb.nvidia.com", "mig-1g.5gb"]
    assert run("-i", *arguments) == (0, "", "")
    # The templates of another file come after those that exist.
    (folder / "other.yaml").write_text(
        (folder / "bad.yaml").read_text().replace("5gb: -1", "10gb: 1")
    )
    assert run("-i", *arguments, "other.yaml")[0] == 0
    assert there()[2:] == ["mig-1g.10gb.nvidia.com", "mig-1g.10gb"]
    code, _, err = run("-i", "--templates-to", "no/such.yaml", "bad.yaml")
    assert (code, err.splitlines()[0][:8]) == (2, "bad.yaml")


@pytest.mark.parametrize("key", ["namePrefix", "nameSuffix"])
def test_warns_of_kustomizations_that_rename_templates(folder: Path, key: str, run: Run) -> None:
    (folder / "kustomization.yaml").write_text(f"resources: [good.yaml]\n{key}: dev\n")
    code, _, err = run("--with-templates", "kustomization.yaml", "good.yaml")
    assert (code, err[:43]) == (0, f"kustomization.yaml:2: warning: {key}: ")
    assert "kustomize" not in run("kustomization.yaml", "good.yaml")[2]


def test_device_class_is_appended_once(folder: Path, run: Run) -> None:
    text = (folder / "good.yaml").read_text()
    spaces = [f"metadata: {{namespace: {name}}}\n{text}" for name in ("a", "b")]
    (folder / "two.yaml").write_text("---\n".join(spaces))
    _, out, _ = run("--with-templates", "two.yaml")
    kinds = [value["kind"] for value in yaml.safe_load_all(out)]
    assert kinds[2:] == ["DeviceClass", "ResourceClaimTemplate", "ResourceClaimTemplate"]


def test_markers_are_not_doubled(folder: Path, run: Run) -> None:
    (folder / "marked.yaml").write_text("---\na: 1\n")
    (folder / "open.yaml").write_text("a: 1")
    _, out, _ = run("open.yaml", "marked.yaml", "open.yaml", "open.yaml")
    assert out == "a: 1\n---\na: 1\n---\na: 1\n---\na: 1"


def test_check_counts_missing_templates(folder: Path, run: Run) -> None:
    assert run("-i", "good.yaml")[0] == 0
    for more, code in (([], 0), (["--with-templates"], 1)):
        assert run("--check", *more, "good.yaml")[0] == code


def test_lone_surrogate_is_printed_as_question_mark(folder: Path, run: Run) -> None:
    """JSON allows "\\ud800", which UTF-8 cannot encode."""
    pod = {"kind": "Pod", "metadata": {"annotations": {"a": "\ud800"}}, "spec": SPEC}
    (folder / "half.json").write_text(json.dumps(pod))
    code, out, _ = run("-o", "json", "half.json")
    assert (code, json.loads(out)["metadata"]["annotations"]) == (0, {"a": "?"})


def test_template_with_digest_in_its_name_cannot_be_derived(folder: Path, run: Run) -> None:
    """A placed claim of very many requests has a digest in its template's name."""
    placed = "metadata: {annotations: {instaslice.io/placement: same-gpu}}\n"
    (folder / "placed.yaml").write_text(placed + limited(30))
    assert run("-i", "placed.yaml")[0] == 0
    code, _, err = run("--with-templates", "placed.yaml")
    assert code == 2
    assert re.search(r"^instaslice: the template same-gpu-\S+ is nowhere defined$", err, re.M)


def test_template_that_the_api_version_lacks_is_one_error(folder: Path, run: Run) -> None:
    refers = "kind: Pod\nspec:\n  containers: []\n  resourceClaims:\n  - name: x\n    "
    refers += "resourceClaimTemplateName: mig-3g.20gb-or-4g.20gb\n"
    (folder / "pod.yaml").write_text(f"{refers}---\n{SAMPLE.read_text()}")
    arguments = ["--with-templates", "--resource-api", "v1beta1", "pod.yaml"]
    code, out, err = run(*arguments)
    assert code == 2
    what = "the template mig-3g.20gb-or-4g.20gb cannot be written: "
    assert err == f"instaslice: {what}resource.k8s.io/v1beta1 has no alternatives\n"
    assert "name: mig-1g.5gb\n" in out


# -- --in-place keeps metadata, and leaves no files behind after a failure ---

POD = "kind: Pod\nspec: {containers: [{resources: {limits: {nvidia.com/mig-1g.5gb: 1}}}]}\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "pod.yaml"
    path.write_text(POD)
    return path


def in_place(*paths: Path, more: tuple[str, ...] = ()) -> int:
    code = main(["rewrite", "--in-place", *more, *map(str, paths)])
    for path in paths:
        # No temporary file is left.
        assert not list(path.parent.glob(".*"))
    return code


FULL = OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("failing", "error", "code"),
    [
        ("fsync", FULL, 2),
        ("fsync", KeyboardInterrupt(), 130),
        ("replace", FULL, 2),
        ("posix_fallocate", FULL, 2),
    ],
)
def test_file_is_written_whole_or_not_at_all(
    file: Path,
    failing: str,
    error: BaseException,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object) -> None:
        raise error

    if failing == "posix_fallocate":
        file.with_name("other.yaml").hardlink_to(file)
    monkeypatch.setattr(os, failing, fail)
    assert in_place(file) == code
    assert file.read_text() == POD
    line = f"instaslice: {file}: No space left on device\n"
    assert capsys.readouterr().err.startswith(line if code == 2 else "")


def test_mode_attributes_and_owner_stay(file: Path) -> None:
    file.chmod(0o2751)
    try:
        os.setxattr(file, "user.note", b"mine")
        attributes = True
    except OSError:  # not every file system supports them
        attributes = False
    inode = file.stat().st_ino
    assert in_place(file) == 0
    assert "resourceClaims" in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o2751
    assert file.stat().st_ino != inode
    if attributes:
        assert os.getxattr(file, "user.note") == b"mine"
    if os.geteuid() == 0:  # only root can give a file away
        os.chown(file, 12345, 54321)
        assert in_place(file, more=("--reverse",)) == 0
        assert (file.stat().st_uid, file.stat().st_gid) == (12345, 54321)


def test_file_is_overwritten_if_its_owner_cannot_be_set(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "chmod", refuse)
    inode = file.stat().st_ino
    assert in_place(file) == 0
    assert "resourceClaims" in file.read_text()
    assert file.stat().st_ino == inode, "the file itself is written"


def test_links_stay(file: Path) -> None:
    other, symbolic = file.with_name("other.yaml"), file.with_name("symbolic.yaml")
    other.hardlink_to(file)
    symbolic.symlink_to(file.name)
    assert in_place(symbolic) == 0
    assert symbolic.is_symlink()
    assert file.stat().st_nlink == 2
    assert other.read_text() == file.read_text() != POD
    # A shorter text replaces the whole file.
    assert in_place(file, more=("--reverse",)) == 0
    assert other.read_text() == POD


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_file_in_read_only_folder_is_overwritten(file: Path) -> None:
    file.parent.chmod(0o500)
    try:
        assert in_place(file) == 0
        assert "resourceClaims" in file.read_text()
    finally:
        file.parent.chmod(0o700)


def test_device_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rewrite", "-i", "/dev/null"]) == 2
    line = "instaslice: /dev/null: is not a regular file, which --in-place needs\n"
    assert capsys.readouterr().err == line


def test_templates_are_appended_to_the_file_that_needs_them_first(file: Path) -> None:
    other = file.with_name("other.yaml")
    other.write_text(POD.rstrip("\n"))
    same = file.with_name("same.yaml")
    same.write_text("kind: ConfigMap")
    assert in_place(same, other, file, more=("--with-templates",)) == 0
    assert same.read_text() == "kind: ConfigMap"
    assert other.read_text().count("\n---\n") == 2
    assert "kind: ResourceClaimTemplate\n" in other.read_text()
    assert "---" not in file.read_text()
    # The second run finds the templates.
    assert in_place(other, file, same, more=("--with-templates", "--diff")) == 0
