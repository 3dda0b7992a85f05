"""Rules for the repository: packages, marks of property tests, the list of modules."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "instaslice").rglob("*.py"))


def test_each_folder_of_modules_is_a_package() -> None:
    """Otherwise the installation lacks it (`packages = find:`)."""
    for path in MODULES:
        assert path.with_name("__init__.py").is_file(), path


def test_property_tests_have_the_mark_for_the_nightly_run() -> None:
    for path in (ROOT / "test").rglob("*.py"):
        text = path.read_text()
        for node in ast.walk(ast.parse(text)) if "given(" in text else ():
            if isinstance(node, ast.FunctionDef):
                decorators = [ast.unparse(each) for each in node.decorator_list]
                if any(each.startswith("given(") for each in decorators):
                    assert "pytest.mark.property" in decorators, f"{path}: {node.name}"


def test_contributing_lists_every_core_module_and_every_folder() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    for path in MODULES:
        name = f"`{path.stem}`" if path.parent == ROOT / "instaslice" else f"`{path.parent.name}/`"
        assert path.name.startswith("__") or name in text, name
