"""README.md, docs/ and other pages: links have targets, and commands are correct."""

import argparse
import re
import shlex
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from instaslice.cli.main import main, parsers
from instaslice.serve.settings import SERVE

ROOT = Path(__file__).parent.parent
DOCS = sorted((ROOT / "docs").glob("*.md"))
#: Every page for people.
PAGES = sorted(
    {*ROOT.glob("*.md"), *DOCS, *ROOT.glob("demo/**/*.md"), *ROOT.glob("charts/**/*.md")}
)

MAX_README = 120
#: The most characters in a line of text; table rows and links cannot be broken.
MAX_LINE = 120
#: The first line of a block that cannot run has one of these marks.
MARK = ("# needs ", "# takes ")
#: Commands that need a cluster, a registry or an hour.
ELSEWHERE = re.compile(
    r"\b(kubectl|helm|docker|kind|podman|go) |make (deploy|undeploy|docker-|fuzz|soak|own-cert|e2e)"
    r"|instaslice (doctor|plan)|--apply"
)


class Block(NamedTuple):
    """A block of code, with its ``` lines."""

    page: Path
    language: str
    text: str

    @property
    def is_marked(self) -> bool:
        return self.text.startswith(MARK)


def blocks(page: Path) -> list[Block]:
    found = re.findall(r"^ *```(\w*)\n(.*?)^ *```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return [Block(page, language, text) for language, text in found]


def consoles() -> list[Block]:
    """The commands to type, from blocks with and without output."""
    found = []
    for page in PAGES:
        for block in blocks(page):
            if block.language != "console":
                continue
            lines = block.text.splitlines()
            typed = [line.removeprefix("$ ") for line in lines if line.startswith(("$ ", *MARK))]
            shows_output = any(line.startswith("$ ") for line in lines)
            found.append(block._replace(text="\n".join(typed)) if shows_output else block)
    return found


def name(block: Block) -> str:
    return f"{block.page.name}: {block.text.splitlines()[0][:50]}"


def without_code(text: str) -> str:
    return re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings on GitHub."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ +(.+)$", without_code(page.read_text()), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").strip().lower()
        found.add(re.sub(r"[^\w\- ]", "", text).replace(" ", "-"))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_have_targets(page: Path) -> None:
    text = without_code(page.read_text())
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}"
        assert ROOT in target.parents, f"{page.name}: {link} leads out of the repository"
        if anchor:
            assert anchor in anchors(target), f"{page.name}: {link}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_a_page_names_exist(page: Path) -> None:
    folders = "bench|charts|config|demo|docs|hack|instaslice|samples|test"
    for name in re.findall(rf"`((?:{folders})/[\w./-]+)`", page.read_text()):
        assert (ROOT / name).exists(), f"{page.name}: {name}"


def test_every_page_is_in_the_navigation_and_in_the_readme() -> None:
    text = (ROOT / "mkdocs.yml").read_text()
    named = set(re.findall(r"- (?:\w+: )?(\w+\.md)$", text, re.MULTILINE))
    assert named == {page.name for page in DOCS}
    for readme, folder in ((ROOT / "README.md", "docs/"), (ROOT / "docs/index.md", "")):
        linked = set(re.findall(rf"\]\({folder}(\w+\.md)", readme.read_text()))
        assert named - {"index.md"} <= linked, readme


def test_the_readme_is_one_page() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= MAX_README


@pytest.mark.parametrize("page", [ROOT / "README.md", *DOCS], ids=lambda page: page.name)
def test_lines_are_wrapped(page: Path) -> None:
    for line in without_code(page.read_text()).splitlines():
        if not line.lstrip().startswith(("|", "![", "<!--")):
            words = re.sub(r"\]\([^)]*\)", "]", line)  # without the targets of links
            assert len(words) <= MAX_LINE, f"{page.name}: {line}"


# Commands


@pytest.mark.parametrize("block", consoles(), ids=name)
def test_blocks_that_cannot_run_are_marked(block: Block) -> None:
    if ELSEWHERE.search(block.text):
        assert block.is_marked, f"{block.page.name}: begin with one of {MARK}:\n{block.text}"


def subcommands() -> dict[str, argparse.ArgumentParser]:
    (found,) = (
        action.choices
        for action in parsers()[0]._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    assert isinstance(found, dict)
    return found


def typed() -> Iterator[tuple[str, list[str]]]:
    """Every command of every block, with its page."""
    for block in consoles():
        for line in block.text.replace("\\\n", " ").splitlines():
            for part in re.split(r"&&|\|", line):
                words = shlex.split(part, comments=True)
                if words:
                    yield block.page.name, words


def test_commands_use_options_targets_and_files_that_exist() -> None:
    """This checks options of instaslice, targets and variables of make, and files."""
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z0-9-]+):", makefile, re.MULTILINE))
    variables = set(re.findall(r"^([A-Z_]+) \?=", makefile, re.MULTILINE))
    variables |= set(re.findall(r"\$\(or \$\(([A-Z_]+)\)", makefile)) | {"IMG"}
    known, checked = subcommands(), Counter[str]()
    for page, (program, *words) in typed():
        where = f"{page}: {program} {' '.join(words)}"
        if Path(program).name in ("instaslice", "kubectl-instaslice") and words:
            if words[0] == "--version":
                continue
            assert words[0] in known, where
            options = {o for action in known[words[0]]._actions for o in action.option_strings}
            flags = [w for w in words[1:] if w.startswith("-") and w != "-"]
            assert {flag.partition("=")[0] for flag in flags} <= options, where
            checked["options"] += len(flags)
        for word in words:
            if program == "make":
                variable, equals, _ = word.partition("=")
                assert (variable in variables) if equals else (word in targets), where
                checked["words of make"] += 1
            if re.fullmatch(r"(samples|demo|hack|charts|config)/[\w./-]+", word):
                assert (ROOT / word).exists(), where
                checked["files"] += 1
    assert checked >= Counter({"options": 11, "words of make": 21, "files": 4})


RUN = [
    (block.page.name, line)
    for block in consoles()
    if not block.is_marked and not ELSEWHERE.search(block.text)
    for line in block.text.replace("\\\n", " ").splitlines()
    if line.startswith("instaslice ") and "..." not in line and "FILE" not in line
]


@pytest.mark.parametrize(("page", "command"), RUN, ids=lambda value: str(value))
def test_unmarked_commands_run(
    page: str, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    _, *words = shlex.split(command, comments=True)
    code = main(words)
    assert code in (0, 1 if "--check" in words or "--diff" in words else 0), page
    assert capsys.readouterr().out, page


# The pages and the program


def test_every_setting_of_serve_is_in_its_table() -> None:
    text = (ROOT / "docs/cli.md").read_text()
    rows = dict(re.findall(r"^\| `(--[a-z-]+)[^|]*\| `(INSTASLICE_\w+)`", text, re.MULTILINE))
    assert rows == {option.flag: option.variable for option in SERVE}


def test_every_command_has_a_section() -> None:
    assert set(subcommands()) <= anchors(ROOT / "docs/cli.md")


def test_every_alert_has_a_section() -> None:
    rules = yaml.safe_load((ROOT / "charts/instaslice/files/alerts.yaml").read_text())
    alerts = {rule["alert"].lower() for rule in rules["groups"][0]["rules"]}
    assert alerts <= anchors(ROOT / "docs/operations.md")


@pytest.mark.parametrize(("column", "folder"), [("module", ""), ("module of `serve/`", "serve")])
def test_every_module_of_the_core_and_the_server_is_in_a_table(column: str, folder: str) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    rows = re.findall(
        r"^\| (.*?) \|", text.partition(f"| {column} |")[2].partition("\n\n")[0], re.M
    )
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    files = {path.stem for path in (ROOT / "instaslice" / folder).glob("[!_]*.py")}
    assert named == files


def test_every_component_has_a_row() -> None:
    text = (ROOT / "docs/install.md").read_text()
    rows = set(re.findall(r"^\| `([a-z0-9.-]+)`", text, re.MULTILINE))
    assert rows == {path.name for path in (ROOT / "config/components").iterdir()}
