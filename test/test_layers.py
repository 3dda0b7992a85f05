"""The table of imports that each folder may make, from the project and from outside."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]


class Layer(NamedTuple):
    """The imports that a folder's modules may make; names separated by blanks."""

    layers: str  #: other folders of the project
    packages: str = ""  #: outside the standard library
    late: str = ""  #: the same, but only inside functions


#: By folder of `instaslice`, lowest first; "" is the core.
LAYERS = {
    "core": Layer(""),
    "cluster": Layer("core", late="yaml"),
    "serve": Layer("core cluster", "gunicorn prometheus_client"),
    "manifests": Layer("core", "yaml"),
    "doctor": Layer("core cluster"),
    "cli": Layer("core cluster serve manifests doctor", "kubernetes yaml", late="argcomplete"),
}
#: `python -m instaslice` belongs to the command line.
ENTRY = "__main__"


def layer(module: str) -> str:
    """The layer of "instaslice.serve.app", "instaslice.rewrite", ..."""
    name = module.split(".")[1] if "." in module else "core"
    return name if name in LAYERS else "cli" if name == ENTRY else "core"


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted((ROOT / "instaslice").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(parts).removesuffix(".__init__"), path


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Every module that a file imports, and whether at the top level."""
    tree = ast.parse(path.read_text())
    top = set(map(id, tree.body))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) in top
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides a layer"
            assert node.module
            for alias in node.names:
                # A name imported from a package may be a module.
                full = f"{node.module}.{alias.name}"
                is_module = (ROOT / (full.replace(".", "/") + ".py")).exists()
                yield full if is_module else node.module, id(node) in top


@pytest.mark.parametrize(("module", "path"), list(modules()), ids=str)
def test_a_module_imports_only_what_the_table_allows(module: str, path: Path) -> None:
    mine = layer(module)
    allowed = LAYERS[mine]
    for name, at_top in imports(path):
        package = name.partition(".")[0]
        if package == "instaslice":
            assert layer(name) in {mine, *allowed.layers.split()}, f"{module} imports {name}"
        elif package not in sys.stdlib_module_names:
            packages = f"{allowed.packages} {'' if at_top else allowed.late}".split()
            assert package in packages, f"{module} imports {name}"


def test_every_folder_is_a_layer() -> None:
    folders = {path.parent.name for path in (ROOT / "instaslice").rglob("__init__.py")}
    assert folders == {"instaslice", *LAYERS} - {"core"}


def loaded(statement: str) -> set[str]:
    """The third-party packages that a new interpreter has loaded after a statement."""
    program = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split()) - sys.stdlib_module_names - {"instaslice"}


@pytest.mark.parametrize("module", ["cli.main", "serve.server"])
def test_serving_loads_only_packages_of_the_image(module: str) -> None:
    extras = {"yaml", "kubernetes", "urllib3", "cryptography"}
    assert not loaded(f"import instaslice.{module}") & extras


def test_the_core_does_no_input_or_output() -> None:
    core = {module for module, _ in modules() if layer(module) == "core"} - {"instaslice"}
    forbidden = {"socket", "ssl", "logging", "tempfile", "subprocess", "asyncio", "time", "pathlib"}
    for module, path in modules():
        if module in core:
            assert not {name for name, _ in imports(path)} & forbidden, module
            assert not re.search(r"\bopen\(|\bos\.", path.read_text()), module


def test_no_test_imports_a_test() -> None:
    imported = re.compile(r"^\s*(?:from|import) test\b.*\b(?:test_\w+|conftest)\b", re.MULTILINE)
    for path in (ROOT / "test").rglob("*.py"):
        assert not imported.search(path.read_text()), path
