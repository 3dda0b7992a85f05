"""Who may import whom, and what from outside: one table for the whole house."""

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
    """What the modules of a folder may import; names with blanks between them."""

    layers: str  #: of the project, beside their own
    packages: str = ""  #: beside the standard library
    late: str = ""  #: likewise, but only inside a function, where they are needed


#: By folder of `instaslice`; the core lies on top. Lowest first.
LAYERS = {
    "core": Layer(""),
    "cluster": Layer("core", late="yaml"),
    "serve": Layer("core cluster", "gunicorn prometheus_client"),
    "manifests": Layer("core", "yaml"),
    "doctor": Layer("core cluster"),
    "cli": Layer("core cluster serve manifests doctor", "kubernetes yaml", late="argcomplete"),
}
#: `python -m instaslice` is the command line.
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
    """Every module that a file imports, and whether at its top."""
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
                # A name of a package may be a module of it.
                full = f"{node.module}.{alias.name}"
                is_module = (ROOT / (full.replace(".", "/") + ".py")).exists()
                yield full if is_module else node.module, id(node) in top


@pytest.mark.parametrize(("module", "path"), list(modules()), ids=str)
def test_a_module_imports_only_what_its_layer_may(module: str, path: Path) -> None:
    mine = layer(module)
    allowed = LAYERS[mine]
    for name, at_top in imports(path):
        package = name.partition(".")[0]
        if package == "instaslice":
            assert layer(name) in {mine, *allowed.layers.split()}, f"{module} imports {name}"
        elif package not in sys.stdlib_module_names:
            packages = f"{allowed.packages} {'' if at_top else allowed.late}".split()
            assert package in packages, f"{module} imports {name}"


def test_every_folder_is_a_layer_and_the_core_lies_on_top() -> None:
    folders = {path.parent.name for path in (ROOT / "instaslice").rglob("__init__.py")}
    assert folders == {"instaslice", *LAYERS} - {"core"}


def loaded(statement: str) -> set[str]:
    """The packages from outside that a fresh interpreter has loaded after a statement."""
    program = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split()) - sys.stdlib_module_names - {"instaslice"}


@pytest.mark.parametrize("module", ["cli.main", "serve.server"])
def test_serving_loads_nothing_but_what_the_image_has(module: str) -> None:
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
    for path in (ROOT / "test").rglob("*.py"):
        for name, _ in imports(path):
            last = name.rpartition(".")[2]
            assert not name.startswith("test.") or not last.startswith(("test_", "conftest")), path
