"""How the repository is kept: packages, marks of property tests, the map for contributors."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "instaslice").rglob("*.py"))
TESTS = sorted((ROOT / "test").rglob("*.py"))


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions(path: Path) -> Iterator[tuple[str, list[str]]]:
    """The functions of a file, each with its decorators as they are written."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            yield node.name, [ast.unparse(each) for each in node.decorator_list]


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
