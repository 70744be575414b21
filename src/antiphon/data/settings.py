"""Settings by dotted names: `--set a.b=c` over the tables of a recipe, and strict filling of settings from a table."""

from __future__ import annotations

import copy
import dataclasses
import tomllib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from antiphon.errors import ConfigError, among

Settings = TypeVar("Settings")


def parse(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a mapping that may be changed."""
    return copy.deepcopy(dict(table))


def assignments(pairs: Sequence[str]) -> dict[str, Any]:
    """Return `a.b=c` strings as a mapping; a value is read as TOML and, where it is none, as the words that it is."""
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise ConfigError(f"--set {pair!r} is no assignment; write it as name=value, such as steps=10.")
        try:
            found[name.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            found[name.strip()] = value
    return found


def apply(table: dict[str, Any], changes: Mapping[str, Any], where: str, *, tables: Collection[str]) -> None:
    """Replace settings in the tables of a recipe by dotted name, in place.

    A name without a dot that is none of `tables`, the names of the run itself, is one of every stage's.
    """
    for name, value in changes.items():
        parts = name.split(".")
        if len(parts) == 1 and parts[0] not in tables:
            parts = ["stage", "*", *parts]
        _set(table, parts, value, f"{where}: {name}")


def _set(table: Any, parts: list[str], value: Any, where: str) -> None:
    head, *rest = parts
    if isinstance(table, list):
        chosen = [item for item in table if head in ("*", item.get("name"))]
        if not chosen:
            names = ", ".join(str(item.get("name")) for item in table)
            raise ConfigError(f"{where} names no stage; take one of {names}, or * for every one.")
        for item in chosen:
            _set(item, rest, value, where)
        return
    if not rest:
        table[head] = value
        return
    inner = table.setdefault(head, {})
    if not isinstance(inner, dict | list):
        raise ConfigError(f"{where} cannot be set: {head} is no table but {inner!r:.40}.")
    _set(inner, rest, value, where)


def fill(settings: type[Settings], table: Mapping[str, Any], where: str) -> Settings:
    """Return the settings dataclass with the table's values; ConfigError for a key or a type that it does not take."""
    fields = [field.name for field in dataclasses.fields(settings)]  # type: ignore[arg-type]  # a dataclass, by contract
    for name in table:
        if name not in fields:
            raise ConfigError(f"{where}.{name} is unknown; {among(name, fields)}.")
    try:
        return TypeAdapter(settings).validate_python(dict(table))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in (where, *first["loc"]))
        raise ConfigError(f"{place}: {first['msg']} (it is {first['input']!r:.80}).") from error
