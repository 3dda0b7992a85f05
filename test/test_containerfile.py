"""The text of the Containerfile and the locks; `make image-test` builds and runs the image."""

import re
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
ONLY_SOURCES = shutil.ignore_patterns("__pycache__")
#: The extra of setup.cfg in each lock.
LOCKS = {"requirements.lock": "", "requirements-cli.lock": "cli"}


def stages() -> list[list[str]]:
    """The Containerfile's instructions by stage; the first stage has those before any FROM."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Containerfile").read_text(), flags=re.MULTILINE)
    found: list[list[str]] = [[]]
    for instruction in text.replace("\\\n", " ").splitlines():
        if instruction.startswith("FROM "):
            found.append([])
        if instruction:
            found[-1].append(instruction)
    return found


def test_nothing_runs_on_the_target_platform() -> None:
    """Otherwise the image could not be built without emulation."""
    for stage in stages()[1:]:
        if not stage[0].startswith("FROM --platform=${BUILD_PLATFORM} "):
            assert not [line for line in stage if line.startswith(("RUN ", "ADD "))]


def test_the_base_images_can_be_chosen() -> None:
    arguments = {line.removeprefix("ARG ").partition("=")[0] for line in stages()[0]}
    assert arguments == {"BUILD_IMAGE", "BASE_IMAGE", "BUILD_PLATFORM"}


def test_the_last_stage_is_not_root_and_serves() -> None:
    common, last = stages()[-3], stages()[-1]
    assert common[0] == "FROM base AS common"
    assert last[0] == "FROM common"
    assert common[-1] == "USER 65532:65532"
    assert last[-1] == 'ENTRYPOINT ["/usr/bin/python3", "-m", "instaslice", "serve"]'


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_has_every_digest_and_no_index(name: str) -> None:
    lock = (ROOT / name).read_text()
    entries = re.findall(r"^[a-z].*?(?=^\S|\Z)", lock, re.MULTILINE | re.DOTALL)
    assert entries
    for entry in entries:
        assert re.fullmatch(r"\S+==\S+(?: \\\n    --hash=sha256:[0-9a-f]{64})+\n", entry)
    assert "://" not in lock


@pytest.mark.parametrize(("name", "extra"), LOCKS.items())
def test_a_lock_matches_setup_cfg(name: str, extra: str) -> None:
    """If this fails, run `make lock`."""
    config = ConfigParser(interpolation=None)
    config.read(ROOT / "setup.cfg")
    lines = config["options"]["install_requires"].splitlines()
    lines += config["options.extras_require"][extra].splitlines() if extra else []
    wanted = [Requirement(line) for line in lines if line and not line.startswith("#")]
    locked = dict(re.findall(r"^(\S+)==(\S+)", (ROOT / name).read_text(), re.MULTILINE))
    for requirement in wanted:
        # PEP 503
        normal = re.sub(r"[-_.]+", "-", requirement.name).lower()
        assert locked[normal] in requirement.specifier
    assert ("kubernetes" in locked) == (extra == "cli")


#: A change to a file of the tree, and the beginning of the error.
DISAGREEMENTS = (
    ("README.md", "# InstaSlice", "# instaslice", "the tree has changes: M README.md"),
    ("CHANGELOG.md", "(2026-11-30)", "(soon)", "CHANGELOG.md begins with '0.1.0 (soon)'"),
    ("charts/instaslice/Chart.yaml", "version: 0.1.0", "version: 9", "Chart.yaml: version is 9"),
    ("requirements.lock", "gunicorn==27", "gunicorn==26", "requirements.lock does not satisfy"),
)


def test_an_inconsistent_tree_is_not_released(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        author = ("-c", "user.name=test", "-c", "user.email=test@example.com")
        subprocess.run(["git", *author, *words], cwd=tmp_path, check=True, capture_output=True)

    for name in (".gitignore", "README.md", "CHANGELOG.md", "setup.cfg", *LOCKS):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("charts", "instaslice", "hack"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ONLY_SOURCES)
    changelog = tmp_path / "CHANGELOG.md"
    changelog.write_text(changelog.read_text().replace("(unreleased)", "(2026-11-30)"))
    git("init")
    git("add", ".")
    git("commit", "--message", "all")
    for name, old, new, reason in DISAGREEMENTS:
        path = tmp_path / name
        path.write_text(path.read_text().replace(old, new, 1))
        if name != "README.md":
            git("commit", "--all", "--message", "change")
        done = subprocess.run(
            [sys.executable, "-m", "hack.release", "registry.example.com/instaslice"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"make release: {reason}")
        assert done.stderr.count("\n") == 1
        git("reset", "--hard", "HEAD" if name == "README.md" else "HEAD~1")
