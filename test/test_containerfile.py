"""The Containerfile and the lock, as far as they can be read; `make image-test` builds and runs."""

import re
from configparser import ConfigParser
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
LOCK = (ROOT / "requirements.lock").read_text()


def stages() -> list[list[str]]:
    """The Containerfile's instructions by stage; the first has those before any FROM."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Containerfile").read_text(), flags=re.MULTILINE)
    found: list[list[str]] = [[]]
    for instruction in text.replace("\\\n", " ").splitlines():
        if instruction.startswith("FROM "):
            found.append([])
        if instruction:
            found[-1].append(instruction)
    return found


def test_nothing_runs_on_the_target_platform() -> None:
    """Or its image could not be built without emulation."""
    for stage in stages()[1:]:
        if not stage[0].startswith("FROM --platform=$BUILDPLATFORM "):
            assert not [line for line in stage if line.startswith(("RUN ", "ADD "))]


def test_the_base_images_can_be_chosen() -> None:
    arguments = {line.removeprefix("ARG ").partition("=")[0] for line in stages()[0]}
    assert arguments == {"BUILD_IMAGE", "BASE_IMAGE"}


def test_the_last_stage_is_not_root_and_serves() -> None:
    last = stages()[-1]
    assert last[0] == "FROM base"
    assert "USER 65532:65532" in last
    assert last[-1] == 'ENTRYPOINT ["/usr/bin/python3", "-m", "instaslice", "serve"]'


def test_the_lock_has_a_digest_for_everything_and_names_no_index() -> None:
    entries = re.findall(r"^[a-z].*?(?=^\S|\Z)", LOCK, re.MULTILINE | re.DOTALL)
    assert entries
    for entry in entries:
        assert re.fullmatch(r"\S+==\S+(?: \\\n    --hash=sha256:[0-9a-f]{64})+\n", entry)
    assert "://" not in LOCK


def test_the_lock_is_of_what_setup_cfg_asks_for() -> None:
    """`make lock` is due when it is not."""
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = config["options"]["install_requires"].splitlines()
    wanted = [Requirement(line) for line in lines if line and not line.startswith("#")]
    locked = dict(re.findall(r"^(\S+)==(\S+)", LOCK, re.MULTILINE))
    for requirement in wanted:
        assert locked[requirement.name.replace("_", "-")] in requirement.specifier
