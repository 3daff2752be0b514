"""The rules of the house, held by the code itself: who imports whom, what loads when, how long things get."""

from __future__ import annotations

import ast
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import srcli

ROOT = Path(srcli.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

# From top to bottom. A room imports itself and rooms further down.
ROOMS = (
    "cli",
    "serve",
    "compare",
    "evaluate",
    "batch",
    "api",
    "uncertainty",
    "pipeline",
    "repair",
    "train",
    "degrade",
    "engines",
    "models",
    "sampling",
    "memory",
    "metrics",
    "weights",
    "imaging",
    "tasks",
    "settings",
    "target_sizes",
    "files",
    "threads",
    "group_signals",
    "messages",
    "errors",
)


def room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[str]:
    """Modules of this package that a file imports, wherever in the file it does so."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path.name} imports relatively"
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "srcli":
            yield from ([node.module] if node.module != "srcli" else [f"srcli.{a.name}" for a in node.names])
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.startswith("srcli."))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path):
    if path.parent == ROOT and path.name in {"__init__.py", "__main__.py"}:
        return
    here = ROOMS.index(room(path))
    upward = [m for m in imported(path) if (r := m.split(".")[1]) in ROOMS and ROOMS.index(r) < here]
    assert upward == []


def test_the_pipeline_names_no_engine():
    source = (ROOT / "pipeline.py").read_text(encoding="utf-8").lower()
    assert [name for name in ("pasd", "stablesr", "sr3", "builtin", "built-in") if name in source] == []


OPENERS = {"open", "load_file", "safe_open", "read_text", "read_bytes", "from_pretrained", "from_single_file"}


@pytest.mark.parametrize("path", sorted((ROOT / "models").rglob("*.py")), ids=lambda p: p.name)
def test_models_never_read_a_file(path):
    called = {
        node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
    }
    assert called & OPENERS == set()


CHANGES = re.compile(r"register_forward_|\.forward = |[\"']forward[\"']\]|\.set_(attn_)?processor\(|\.patch_layers\(")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_networks_are_changed_by_patches_alone(path):
    if path.parent != ROOT / "models" / "patches":
        assert CHANGES.findall(path.read_text(encoding="utf-8")) == []


def test_the_command_line_loads_no_heavy_library():
    code = "import sys, srcli.cli; print(*(m for m in ('torch', 'diffusers', 'transformers') if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def functions() -> Iterator[tuple[int, str]]:
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield (node.end_lineno or node.lineno) - node.lineno + 1, f"{path.name}:{node.name}"


def test_functions_are_short_and_files_are_not_long():
    lengths = list(functions())
    assert [f for f in lengths if f[0] > 50] == []
    assert statistics.median(length for length, _ in lengths) < 12
    assert [p.name for p in FILES if len(p.read_text(encoding="utf-8").splitlines()) > 400] == []


def defined(node: ast.stmt) -> Iterator[str]:
    """Functions, classes, constants and type aliases that a statement defines."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    for target in (
        node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    ):
        yield from (inner.id for inner in ast.walk(target) if isinstance(inner, ast.Name))


def public_names(*kinds: type) -> Iterator[tuple[str, str]]:
    """Names that a module defines at its top and does not keep to itself, and the module."""
    for path in FILES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, kinds):
                yield from ((n, str(path.relative_to(ROOT))) for n in defined(node) if not n.startswith("_"))


# A module's logger, the type variable that stands for anything, and what each engine's folder calls its description.
COMMON = {"log", "T", "SPEC"}


def test_a_name_has_one_definition():
    places: dict[str, list[str]] = {}
    for name, place in public_names(ast.stmt):
        places.setdefault(name, []).append(place)
    assert {name: found for name, found in places.items() if len(set(found)) > 1 and name not in COMMON} == {}


def test_functions_are_named_for_what_they_do():
    """One word says too little: at most one public function in twenty."""
    names = [name for name, _ in public_names(ast.FunctionDef, ast.AsyncFunctionDef)]
    assert len([name for name in names if "_" not in name]) <= len(names) / 20


def sentences(call: ast.Call) -> Iterator[str]:
    """Longer pieces of the message that an error gets."""
    name = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
    for node in (node for given in call.args for node in ast.walk(given)) if name.endswith("Error") else ():
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) > 25:
            yield node.value


def test_a_sentence_of_a_message_stands_in_one_place():
    places: dict[str, list[str]] = {}
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for text in sentences(node) if isinstance(node, ast.Call) else ():
                places.setdefault(text.strip(), []).append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert {text: found for text, found in places.items() if len(found) > 1} == {}


DOCS = ROOT.parents[1] / "docs" / "architecture.md"


def test_the_walks_name_files_that_exist():
    walks = DOCS.read_text(encoding="utf-8").split("## Four walks")[1].split("\n## ")[0]
    named = re.findall(r"`((?:src|tests)/[\w/.]+)`", walks)
    assert len(named) > 12
    assert [name for name in named if not (ROOT.parents[1] / name).exists()] == []


def test_settings_and_tasks_name_no_engine():
    source = "".join((ROOT / name).read_text(encoding="utf-8").lower() for name in ("settings.py", "tasks.py"))
    assert [name for name in ("stablesr", "sr3", "onestep", "builtin", "built-in") if name in source] == []
