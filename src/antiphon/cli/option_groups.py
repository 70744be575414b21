"""Options that several commands take alike, or that belong together: a command gets each group as one parameter."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Annotated, Any, get_type_hints

import typer


@dataclass(frozen=True)
class OptionGroup:
    """Options of one panel of --help, and what they are made into."""

    parameter: str
    """The parameter of a command in whose place they stand; what it is annotated with is not looked at."""
    options: Mapping[str, tuple[Any, Any]]
    """Their types and typer's options, by the names that `made` gets them under: those alone that were given."""
    made: Callable[[dict[str, Any]], Any]


def in_panel(panel: str) -> Callable[..., Any]:
    """Return what makes an option of a panel of --help, from its help and its names; nothing is said of a default."""

    def option(help: str, *names: str, metavar: str | None = None) -> Any:
        return typer.Option(*names, help=help, show_default=False, rich_help_panel=panel, metavar=metavar)

    return option


def with_groups(*groups: OptionGroup) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of some groups, behind its own; it is called with what each group makes of them."""

    def wrap(command: Callable[..., None]) -> Callable[..., None]:
        signature, names = inspect.signature(command), [group.parameter for group in groups]
        for name in names:
            del command.__annotations__[name]  # which is imported when a command runs, not before
        hints = get_type_hints(command, include_extras=True)
        own = [
            parameter.replace(annotation=hints[name])
            for name, parameter in signature.parameters.items()
            if name not in names
        ]
        added = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, option])
            for group in groups
            for name, (kind, option) in group.options.items()
        ]

        @wraps(command)
        def run(*arguments: Any, **values: Any) -> None:
            made = {group.parameter: group.made(_given(group, values)) for group in groups}
            command(*arguments, **values, **made)

        described: Any = run
        described.__signature__ = signature.replace(parameters=[*own, *added])
        described.__annotations__ = {**hints, **{parameter.name: parameter.annotation for parameter in added}}
        return run

    return wrap


def _given(group: OptionGroup, values: dict[str, Any]) -> dict[str, Any]:
    """Take a group's options out of all values, and return those that were given."""
    taken = {name: values.pop(name) for name in group.options}
    return {name: value for name, value in taken.items() if value is not None}
