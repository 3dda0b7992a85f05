"""How the repository is kept: where tests lie, how they are marked, how long a module may be."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
#: A module longer than this does two things.
MAX_LINES = 400

#: Parts of another module, tested through it: where they lie, and where their tests are.
THROUGH = {
    "test/manifests/test_documents.py": ("model", "part"),
    "test/manifests/test_edit.py": ("flow", "layout", "nodes"),
    "test/manifests/test_files.py": ("output",),
}

MODULES = sorted((ROOT / "instaslice").rglob("*.py"))
TESTS = sorted((ROOT / "test").rglob("*.py"))


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions(path: Path) -> Iterator[tuple[str, list[str]]]:
    """The functions of a file, each with its decorators as they are written."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            yield node.name, [ast.unparse(each) for each in node.decorator_list]


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_no_module_is_too_long(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_LINES


@pytest.mark.parametrize(
    "path",
    [path for path in MODULES if not path.name.startswith("__") and list(functions(path))],
    ids=relative,
)
def test_each_module_that_does_something_has_its_tests_at_its_place(path: Path) -> None:
    below = path.relative_to(ROOT / "instaslice")
    own = ROOT / "test" / below.with_name(f"test_{below.name}")
    others = [file for file, parts in THROUGH.items() if path.stem in parts]
    assert own.is_file() or any(own.parent == (ROOT / file).parent for file in others)


def test_each_folder_of_modules_is_a_package() -> None:
    """Else it is missing in what is installed (`packages = find:`)."""
    for path in MODULES:
        assert path.with_name("__init__.py").is_file(), path


@pytest.mark.parametrize("path", TESTS, ids=relative)
def test_property_tests_are_marked_so_that_the_nightly_run_finds_them(path: Path) -> None:
    for name, decorators in functions(path):
        if any(each.startswith("given(") for each in decorators):
            assert "pytest.mark.property" in decorators, name


def test_the_map_for_contributors_has_every_module_of_the_core_and_every_folder() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    for path in MODULES:
        name = f"`{path.stem}`" if path.parent == ROOT / "instaslice" else f"`{path.parent.name}/`"
        assert path.name.startswith("__") or name in text, name
