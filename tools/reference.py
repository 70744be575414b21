"""Write docs/reference from the code: commands, recipe keys, settings of losses, public functions.

`python -m tools.reference` writes the pages; a test compares them with what is there.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import typer.main
from pydantic import BaseModel

import antiphon
from antiphon.cli import app
from antiphon.data.mixtures import PairSettings
from antiphon.model.adapters import Lora
from antiphon.training import recipe, recipe_tables
from antiphon.training.losses import LOSSES

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "reference"
NOTE = "<!-- made from the code by `python -m tools.reference`; edit the docstrings -->\n"
TABLES: tuple[tuple[str, type], ...] = (
    ("the recipe", recipe.Recipe),
    ("[model]", recipe_tables.Model),
    ("[model.template]", recipe_tables.TemplateTable),
    ("[data]", recipe_tables.Data),
    ("[[data.sets]], [[set]] of a mixture", PairSettings),
    ("[data.overlap]", recipe_tables.OverlapTable),
    ("[[stage]]", recipe_tables.Stage),
    ("[stage.lora]", Lora),
    ("[stage.evaluation]", recipe_tables.Evaluation),
    ("[plan]", recipe_tables.Budget),
)
"""The tables of a recipe, as its file names them, and the classes that read them."""


def pages() -> dict[str, str]:
    """Return every page by its file name."""
    return {
        "cli.md": _page("Commands", "Every command, as `antiphon COMMAND --help` says it.", _commands()),
        "recipe.md": _page(
            "Recipes",
            "Every key of a recipe's TOML file. A key that is not here is an error that names its neighbour.",
            (_table(name, kind) for name, kind in TABLES),
        ),
        "losses.md": _page(
            "Losses",
            "What `loss` can be, and what `[stage.settings]` takes under each.",
            (_table(f"{name}", kind.settings) for name, kind in LOSSES.items()),
        ),
        "python.md": _page("Python", "Every public name of `antiphon`.", map(_public, antiphon.__all__)),
    }


def write(folder: Path = FOLDER) -> None:
    """Write the pages into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")


def _page(title: str, about: str, sections: Any) -> str:
    return f"{NOTE}# {title}\n\n{about}\n\n" + "\n\n".join(sections) + "\n"


def _commands() -> Iterator[str]:
    commands: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]  # a group
    for name, one in commands.items():
        rows = [
            (", ".join(f"`{option}`" for option in (*parameter.opts, *parameter.secondary_opts)), *_option(parameter))
            for parameter in one.params
            if parameter.param_type_name == "option" and parameter.name != "help"
        ]
        arguments = [
            f"- `{parameter.metavar or parameter.name.upper()}`: {_one_line(getattr(parameter, 'help', '') or '')}"
            for parameter in one.params
            if parameter.param_type_name == "argument"
        ]
        examples = (one.epilog or "").removeprefix("Examples:").strip()
        parts = [f"## antiphon {name}", inspect.cleandoc(one.help or ""), "\n".join(arguments)]
        if rows:
            parts.append(_rows(("option", "default", "meaning"), rows))
        yield "\n\n".join(filter(None, [*parts, examples]))


def _option(parameter: Any) -> tuple[str, str]:
    shown = "" if parameter.default is None or callable(parameter.default) else f"`{_plain(parameter.default)}`"
    return shown, _one_line(parameter.help or "")


def _table(name: str, kind: type) -> str:
    meanings = _meanings(kind)
    rows = [(f"`{field}`", type_, default, meanings.get(field, "")) for field, type_, default in _fields(kind)]
    return f"## {name}\n\n{_one_line(inspect.getdoc(kind) or '')}\n\n" + _rows(
        ("key", "type", "default", "meaning"), rows
    )


def _fields(kind: type) -> Iterator[tuple[str, str, str]]:
    """Yield name, type and default of what a table takes."""
    hints = get_type_hints(kind, include_extras=False)
    if issubclass(kind, BaseModel):
        for name, field in kind.model_fields.items():
            if not field.exclude:
                yield name, _type(hints[name]), "required" if field.is_required() else f"`{_plain(field.default)}`"
        return
    for one in dataclasses.fields(kind):
        missing = one.default is dataclasses.MISSING
        yield one.name, _type(hints[one.name]), "required" if missing else f"`{_plain(one.default)}`"


def _meanings(kind: type) -> dict[str, str]:
    """Return the docstrings that stand behind the fields of a class and its bases."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if not base.__module__.startswith("antiphon"):
            continue
        tree = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        assert isinstance(tree, ast.ClassDef)
        for field, text in zip(tree.body, tree.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                found[ast.unparse(field.target)] = _one_line(str(text.value.value))
    return found


def _public(name: str) -> str:
    thing = getattr(antiphon, name)
    text = f"## antiphon.{name}\n\n{_called(name, thing)}\n\n{inspect.getdoc(thing)}"
    if not inspect.isclass(thing):
        return text
    methods = [
        f"### {name}.{method}\n\n{_called(method, member)}\n\n{inspect.getdoc(member)}"
        for method, member in vars(thing).items()
        if inspect.isfunction(member) and not method.startswith("_")
    ]
    return "\n\n".join([text, *methods])


def _called(name: str, thing: Any) -> str:
    """Return how a function is called, each parameter with the annotation that its source has."""
    signature = inspect.signature(thing)
    given = [str(one).replace(f"'{one.annotation}'", str(one.annotation)) for one in signature.parameters.values()]
    kinds = [one.kind for one in signature.parameters.values()]
    if inspect.Parameter.KEYWORD_ONLY in kinds and inspect.Parameter.VAR_POSITIONAL not in kinds:
        given.insert(kinds.index(inspect.Parameter.KEYWORD_ONLY), "*")
    shown = [one for one in given if one != "self"]
    return "```text\n" + f"{name}({', '.join(shown)}) -> {signature.return_annotation}\n```"


def _type(hint: Any) -> str:
    shown = hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)
    for prefix in ("typing.", "collections.abc.", "antiphon.training.recipe_tables.", "antiphon.model.adapters."):
        shown = shown.replace(prefix, "")
    return f"`{shown}`".replace("|", "\\|")


def _plain(value: Any) -> str:
    shown = "its defaults" if isinstance(value, BaseModel) else getattr(value, "value", value)
    return str(shown).replace("|", "\\|") if shown != "" else '""'


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _rows(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


if __name__ == "__main__":
    write()
