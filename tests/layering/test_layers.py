"""Every import arrow points down, heavy libraries stay out of the page's process, and modules stay short."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "playground"
FLOORS = {"core": 0, "models": 1, "techniques": 1, "measure": 1, "engines": 2, "results": 2, "presets": 3, "run": 3, "ui": 4, "cli": 4}
FILES = sorted(PACKAGE.rglob("*.py"))
HEAVY = ("torch", "triton", "transformers", "bitsandbytes", "onnxruntime", "peft")
DECODE = PACKAGE / "engines" / "decode"  # all about torch: imported inside functions only, and by each other


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def imports(path: Path, top_level_only: bool = False) -> list[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    found = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    return found + [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]


def decode_modules(path: Path) -> list[str]:
    """What a file imports of the package engines.decode at module level, be it spelt `from playground.engines import decode`."""
    nodes = ast.parse(path.read_text(encoding="utf-8")).body
    froms = [f"{node.module}.{alias.name}" for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names]
    return [name for name in [*imports(path, top_level_only=True), *froms] if f"{name}.".startswith("playground.engines.decode.")]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down_or_stay_in_their_room(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if own in ("__init__", "__main__"):
        return
    for module in imports(path):
        if module == "playground" or not module.startswith("playground."):
            continue
        other = room(module)
        assert other == own or FLOORS[other] < FLOORS[own], f"{own} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_core_needs_only_the_standard_library_and_gradio_stays_in_the_page(path: Path) -> None:
    inside = path.relative_to(PACKAGE).parts[0]
    for module in imports(path):
        top = module.split(".")[0]
        if inside == "core":
            assert top == "playground" or top in sys.stdlib_module_names, f"core imports {module}"
        if inside != "ui":
            assert top != "gradio", f"{path.name} imports gradio"
    allowed = ("torch", "triton") if DECODE in path.parents else ()
    for module in imports(path, top_level_only=True):
        assert module.split(".")[0] not in HEAVY or module.split(".")[0] in allowed, f"{path.name} imports {module} at module level"


@pytest.mark.parametrize("path", [*FILES, ROOT / "app.py"], ids=lambda p: str(p.relative_to(ROOT)))
def test_what_imports_torch_at_its_top_is_imported_inside_functions_or_by_its_like(path: Path) -> None:
    assert DECODE in path.parents or not decode_modules(path), f"{path.name} imports {decode_modules(path)} at module level"


def test_an_import_of_the_decode_modules_is_seen_in_every_spelling(tmp_path: Path) -> None:
    path = tmp_path / "some.py"
    for line in (
        "import playground.engines.decode.step",
        "from playground.engines.decode import step",
        "from playground.engines import decode",
    ):
        path.write_text(line)
        assert decode_modules(path), line
        path.write_text(f"def later():\n    {line}")
        assert not decode_modules(path), line


@pytest.mark.parametrize("path", [*FILES, ROOT / "app.py"], ids=lambda p: str(p.relative_to(ROOT)))
def test_modules_and_functions_stay_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 50, f"{node.name} is too long"


@pytest.mark.parametrize("module", ["playground.ui.page", "playground.cli", "playground.run.worker", "playground.engines.graph"])
def test_importing_a_room_in_a_fresh_interpreter_leaves_torch_out(module: str) -> None:
    code = f"import sys, {module}; print([name for name in {HEAVY!r} if name in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize("module", ["playground.cli", "playground.run.worker"])
def test_the_command_line_needs_neither_gradio_nor_plotly(module: str) -> None:
    code = f"import sys, {module}; print([name for name in ('gradio', 'plotly', 'pandas') if name in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    assert out.stdout.strip() == "[]"
