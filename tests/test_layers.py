"""Guards on the shape of the code: imports point down, files stay short, nothing heavy is imported early."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "src" / "antiphon"
# Lower layers first: a module imports from the lines above its own.
LAYERS = (
    ("errors",),
    ("docstrings", "overriding", "pieces", "processes", "rows", "statistics", "tokenizer_json"),
    ("template",),
    ("prompt_grammar", "tokens"),
    ("baking", "modules", "attention", "nano/__init__", "recipe"),
    ("adapters", "model"),
    ("checkpoint",),
    ("parity", "fingerprint", "record", "remote"),
    ("variants",),
    ("diagnosing",),
    ("losses", "nano"),
    ("encoding",),
    ("opening", "reconstructing", "sources", "showing"),
    ("index",),
    ("neighbours", "pairs"),
    ("sampling",),
    ("mixtures",),
    ("corpus", "evaluation", "mining"),
    ("training",),
    ("demo",),
    ("exporting", "serving"),
    ("report",),
    ("cli",),
    ("nano/__main__",),
)
LONGEST_FILE, LONGEST_FUNCTION = 300, 60


def name_of(path: Path) -> str:
    return path.relative_to(SOURCE).with_suffix("").as_posix()


def layer_of(name: str) -> int:
    exact = {module: number for number, layer in enumerate(LAYERS) for module in layer}
    return exact[name] if name in exact else exact[name.split("/")[0]]


def imported(tree: ast.AST) -> list[str]:
    """Modules of ours that are imported, other than for type checking."""
    typing_only = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and getattr(branch.test, "id", "") == "TYPE_CHECKING"
        for node in ast.walk(branch)
    }
    found = []
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.ImportFrom)
            and (node.module or "").split(".")[0] == "antiphon"
            and id(node) not in typing_only
        ):
            path = node.module.removeprefix("antiphon").removeprefix(".").replace(".", "/")
            for alias in node.names:
                inner = f"{path}/{alias.name}".removeprefix("/")
                exists = (SOURCE / f"{inner}.py").exists() or (SOURCE / inner).is_dir()
                found.append(inner if exists else path)
    return [f"{name}/__init__" if (SOURCE / name).is_dir() and name else name for name in found if name]


def test_imports_point_down():
    wrong = []
    for path in SOURCE.rglob("*.py"):
        name = name_of(path)
        if name == "__init__":
            continue
        for other in imported(ast.parse(path.read_text(encoding="utf-8"))):
            if other == "__init__" or other.split("/")[0] == name.split("/")[0]:
                continue
            if layer_of(other) >= layer_of(name):
                wrong.append(f"{name} imports {other}")
    assert not wrong, wrong


def test_files_and_functions_stay_short():
    long = []
    for path in SOURCE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if text.count("\n") > LONGEST_FILE:
            long.append(name_of(path))
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno > LONGEST_FUNCTION:
                long.append(f"{name_of(path)}.{node.name}")
    assert not long, long


def test_only_report_prints():
    for path in SOURCE.rglob("*.py"):
        calls = [n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Call)]
        printing = [call for call in calls if getattr(call.func, "id", "") == "print"]
        assert not printing or name_of(path).startswith("report/"), name_of(path)


def test_importing_antiphon_and_its_command_line_loads_nothing_heavy():
    code = (
        "import sys, antiphon, antiphon.cli; "
        "heavy = {'torch', 'transformers', 'sentence_transformers', 'numpy', 'pyarrow', 'mteb'}; "
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
