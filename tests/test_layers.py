"""Guards on the shape of the code: imports point down, files stay short, nothing heavy is imported early."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "src" / "antiphon"
# Lower rooms first: a module imports from the lines above its own, or from its own room.
LAYERS = (
    ("errors",),
    ("files", "compat"),
    ("text",),
    ("modules", "nano"),
    ("model",),
    ("data",),
    ("encoding",),
    ("corpus",),
    ("training/losses",),  # evaluation's probe of what a vector remembers asks them; training stands above both
    ("evaluation",),
    ("training",),
    ("exporting", "demo"),
    ("serving",),
    ("cli",),
)
DOORS = 16
NO_DOORS = {"__init__.py", "__main__.py", "__pycache__", "py.typed"}
LONGEST_FILE, LONGEST_FUNCTION, NEARLY_ALL_FUNCTIONS = 300, 60, 40
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def name_of(path: Path) -> str:
    return path.relative_to(SOURCE).with_suffix("").as_posix()


def room_of(name: str) -> str:
    """The room that a module stands in: the longest entry of LAYERS that begins its name."""
    rooms = [room for layer in LAYERS for room in layer if f"{name}/".startswith(f"{room}/")]
    return max(rooms, key=len)


def layer_of(name: str) -> int:
    return next(number for number, layer in enumerate(LAYERS) if room_of(name) in layer)


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


def modules() -> dict[str, ast.Module]:
    return {name_of(path): ast.parse(path.read_text(encoding="utf-8")) for path in sorted(SOURCE.rglob("*.py"))}


def test_the_house_has_few_doors():
    doors = {path.name for path in SOURCE.iterdir() if path.suffix in ("", ".py")} - NO_DOORS
    assert len(doors) <= DOORS, sorted(doors)
    assert doors <= {f"{room}.py" for layer in LAYERS for room in layer} | {room for layer in LAYERS for room in layer}


def test_imports_point_down():
    wrong = []
    for name, tree in modules().items():
        if name == "__init__":
            continue
        for other in imported(tree):
            if other != "__init__" and room_of(other) != room_of(name) and layer_of(other) >= layer_of(name):
                wrong.append(f"{name} imports {other}")
    assert not wrong, wrong


def test_no_two_classes_share_a_name():
    """A name says one thing: a reader who greps for it lands where it is."""
    places: dict[str, list[str]] = {}
    for name, tree in modules().items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(name)
    shared = {name: where for name, where in places.items() if len(where) > 1}
    assert not shared, shared


def test_no_two_modules_need_each_other():
    """No cycles at import: what a module imports at its top never leads back to it."""
    needs = {
        name: {other for other in imported(ast.Module([node for node in tree.body], [])) if other != "__init__"}
        for name, tree in modules().items()
        if name != "__init__"
    }
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join([*above, name])
        if name not in done:
            for other in needs.get(name, ()):
                visit(other, (*above, name))
            done.add(name)

    for name in needs:
        visit(name, ())


def test_no_file_name_is_used_twice():
    names = [path.name for path in SOURCE.rglob("*.py") if path.name not in NO_DOORS]
    assert len(names) == len(set(names)), sorted({name for name in names if names.count(name) > 1})


def test_files_and_functions_stay_short():
    files = {path: path.read_text(encoding="utf-8").count("\n") for path in SOURCE.rglob("*.py")}
    assert not [name_of(path) for path, lines in files.items() if lines > LONGEST_FILE]
    lengths = {
        f"{name}.{node.name}": node.end_lineno - node.lineno + 1
        for name, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, FUNCTIONS)
    }
    assert not {name: lines for name, lines in lengths.items() if lines > LONGEST_FUNCTION}
    assert sorted(lengths.values())[int(0.95 * len(lengths))] <= NEARLY_ALL_FUNCTIONS


def test_only_report_prints():
    for path in SOURCE.rglob("*.py"):
        calls = [n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Call)]
        printing = [call for call in calls if getattr(call.func, "id", "") == "print"]
        assert not printing or name_of(path).startswith("cli/report/"), name_of(path)


def test_importing_antiphon_and_its_command_line_loads_nothing_heavy():
    code = (
        "import sys, antiphon, antiphon.cli; "
        "heavy = {'torch', 'transformers', 'sentence_transformers', 'numpy', 'pyarrow', 'mteb'}; "
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
