"""The columns that come with texts into their shards: one type each for a whole folder, and values out and in again.

A column is of the type that all of its values share, as Arrow sees them: strings, whole numbers, floats, booleans,
dates, lists of such. What has no such type (values of several kinds, dicts) is written as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from antiphon.data.skipped import Skipped
from antiphon.data.text_columns import Record
from antiphon.errors import DataError, first_line

JSON = "json"
"""How a column is described whose values are written as JSON."""
_UNTYPED = (pa.ArrowException, TypeError, ValueError, OverflowError)


@dataclass(frozen=True)
class KeptColumns:
    """The kept columns of a folder of vectors and their types; None is JSON."""

    types: Mapping[str, pa.DataType | None] = field(default_factory=dict)

    def with_values_of(self, records: Sequence[Record]) -> KeptColumns:
        """Return the columns with those of some records more, each of a type that also these have."""
        names = dict.fromkeys((*self.types, *(name for record in records for name in record.fields)))
        types = {}
        for name in names:
            values = [record.fields.get(name) for record in records]
            types[name] = _common(self.types.get(name, pa.null()), _type_of(values))
        return replace(self, types=types)

    @property
    def described(self) -> dict[str, str]:
        """The columns and their types in words."""
        written = {name: _written(kind) for name, kind in self.types.items()}
        return {name: JSON if kind is None else str(kind) for name, kind in written.items()}

    def arrays(self, records: Sequence[Record]) -> dict[str, pa.Array]:
        """Return the columns of some records; DataError where a value is not of the column's type."""
        return {name: _array(name, kind, records) for name, kind in self.types.items()}

    def tell_missing(self, records: Sequence[Record], where: str, skipped: Skipped) -> None:
        """Count the fields of some records that the folder has no column for: of a stream the first shard has all."""
        for record in records:
            for name in record.fields:
                if name not in self.types:
                    what = f"values of {name!r}, which no text of the first shard has"
                    skipped.add(what, f"{where}, {record.id}", "give it to the first rows too, or name what to keep")


def read_back(described: Mapping[str, str], columns: Mapping[str, Sequence[Any]], row: int) -> dict[str, Any]:
    """Return what a row of a shard holds in the kept columns, JSON as what it was."""
    found = {name: columns[name][row] for name in described}
    return {
        name: json.loads(value) if described[name] == JSON and value is not None else value
        for name, value in found.items()
    }


def as_text(value: Any) -> str:
    """Return a value as JSON; what JSON does not know, such as a date, as its words."""
    return json.dumps(value, ensure_ascii=False, default=str)


def _type_of(values: Sequence[Any]) -> pa.DataType | None:
    try:
        kind = pa.array(values).type
    except _UNTYPED:
        return None
    return kind if _is_plain(kind) else None


def _is_plain(kind: pa.DataType) -> bool:
    """Return whether Parquet gives the values back as they were: a struct gets the fields of others."""
    if pa.types.is_list(kind):
        return _is_plain(kind.value_type)
    return not pa.types.is_nested(kind)


def _common(one: pa.DataType | None, other: pa.DataType | None) -> pa.DataType | None:
    if one is None or other is None:
        return None
    try:
        pair = [pa.schema([("value", kind)]) for kind in (one, other)]
        return pa.unify_schemas(pair, promote_options="permissive").field("value").type
    except _UNTYPED:
        return None


def _written(kind: pa.DataType | None) -> pa.DataType | None:
    """Return the type in a shard, None for JSON; a column without a value is one of strings."""
    if kind is None or pa.types.is_null(kind):
        return None if kind is None else pa.string()
    inner = kind
    while pa.types.is_list(inner):
        inner = inner.value_type
    return None if pa.types.is_null(inner) else kind  # lists, and nothing in any of them


def _array(name: str, kind: pa.DataType | None, records: Sequence[Record]) -> pa.Array:
    values, written = [record.fields.get(name) for record in records], _written(kind)
    if written is None:
        return pa.array([None if value is None else as_text(value) for value in values], pa.string())
    try:
        return pa.array(values, written)
    except _UNTYPED as error:
        raise DataError(
            f"The field {name!r} of {records[0].id!r} or of one of the {len(records) - 1} texts behind it is not of "
            f"the type {written} that it has before ({first_line(error):.120}); mend it, or name by --keep what "
            "else to keep."
        ) from error
