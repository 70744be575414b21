"""From one row of a table to one text: which columns make it, which one names it, and which are kept beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from antiphon.data.byte_streams import refuse
from antiphon.data.cells import identity_of, listed, text_of, value_of
from antiphon.data.rows import Row
from antiphon.data.skipped import Skipped
from antiphon.errors import among

TEXT_FIELDS = ("text", "body", "content", "sentence", "passage")
TITLE = "title"
ID_FIELDS = ("id", "_id")
OWN = ("id", "text", "vector")
"""What an embedded text has of its own, so that no kept column may be called so."""


@dataclass(frozen=True)
class Record:
    """One text of a source, its name, and what else its row holds."""

    id: str
    text: str
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Wanted:
    """What a reader asks of a table: each is found by itself where it is None."""

    texts: tuple[str, ...] | None = None
    """The columns that make the text, in this order, a space between them."""
    identity: str | None = None
    keep: tuple[str, ...] | None = None
    """The columns that are kept; all where it is None, none where it is empty."""

    @classmethod
    def of(cls, field: str | Sequence[str] | None, id_field: str | None, keep: Sequence[str] | None) -> Wanted:
        """Take them as the verbs do: one field may stand alone."""
        texts = (field,) if isinstance(field, str) else tuple(field or ()) or None
        return cls(texts, id_field, None if keep is None else (keep,) if isinstance(keep, str) else tuple(keep))

    def refused(self, subject: str) -> None:
        """Refuse what was asked of a source that has no columns; nothing where nothing was asked."""
        asked = (*(self.texts or ()), *([self.identity] if self.identity is not None else ()), *(self.keep or ()))
        if asked:
            refuse(f"{subject} has no field {asked[0]!r}; leave the field out.")


@dataclass(frozen=True)
class TextColumns:
    """Which columns of a table make a text, which one names it, and which are kept."""

    texts: tuple[str, ...]
    identity: str | None
    """None where no row has an id: the rows' numbers are taken."""
    kept: tuple[str, ...] | None
    """None where the columns are not known beforehand: whatever else a row has."""
    named: bool
    """Whether the identity was asked for, so that every row must have one."""

    @classmethod
    def of(cls, names: Sequence[str], where: str, wanted: Wanted, *, streamed: bool = False) -> TextColumns:
        """Find them among the names that there are; of a stream these are the first row's.

        Raises DataError for a name that is asked for and not there, or kept under a name of OWN.
        """
        texts = _texts(names, where, wanted)
        for asked in (*(() if wanted.identity is None else (wanted.identity,)), *(wanted.keep or ())):
            if asked not in names and not streamed:
                refuse(f"{where} has no field {asked!r}, only {listed(names)}; {among(asked, names)}.")
        found = next((name for name in ID_FIELDS if name in names and name not in texts), None)
        identity = found if wanted.identity is None else wanted.identity
        columns = cls(texts, identity, wanted.keep, wanted.identity is not None)
        if wanted.keep is None:
            return columns if streamed else cls(texts, identity, tuple(columns._others(names)), columns.named)
        clashing = [name for name in wanted.keep if name in OWN and name not in columns._own]
        if clashing:
            refuse(f"{where}: {clashing[0]!r} is what a shard calls its own column; rename the field to keep it.")
        return cls(texts, identity, tuple(name for name in wanted.keep if name not in columns._own), columns.named)

    @property
    def needed(self) -> tuple[str, ...]:
        """Every column that a record is made of."""
        identity = (self.identity,) if self.identity is not None else ()
        return tuple(dict.fromkeys((*self.texts, *identity, *(self.kept or ()))))

    @property
    def _own(self) -> tuple[str, ...]:
        """The columns that a record holds already, as its id or as its whole text."""
        whole = self.texts if len(self.texts) == 1 else ()
        return (*whole, *(() if self.identity is None else (self.identity,)))

    def _others(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if name not in self._own and name not in OWN]

    def tell(self, names: Sequence[str], where: str, skipped: Skipped, *, asked: bool) -> None:
        """Count the columns that hold text and are not read, and those that cannot be kept under their names."""
        others = [name for name in TEXT_FIELDS if name in names and name not in self.texts]
        if others and not asked:
            what = f"columns that hold text too: {listed(others)}"
            skipped.add(what, where, "remove them, or name the fields to join", number=len(others))
        clashing = [name for name in names if name in OWN and name not in (*self._own, *self.texts)]
        if clashing and self.kept:
            what = f"columns that are called as a shard's own: {listed(clashing)}"
            skipped.add(what, where, "rename them to keep them", number=len(clashing))

    def record(self, row: Row) -> Record:
        """Return the record of a row; DataError, with its place, for what it lacks."""
        if self.kept is None:
            fields = {name: row.values[name] for name in self._others(row.values)}
        else:
            fields = {name: row.values.get(name) for name in self.kept}
        return Record(self._identity(row), self._text(row), fields)

    def _identity(self, row: Row) -> str:
        found = self.identity
        if not self.named:  # of a stream the first row need not have one, and a later one may
            found = next((name for name in ID_FIELDS if name in row.values and name not in self.texts), None)
        return str(row.number) if found is None else identity_of(value_of(row, found), row.where, found)

    def _text(self, row: Row) -> str:
        if len(self.texts) == 1:
            return text_of(value_of(row, self.texts[0]), row.where, self.texts[0])
        found = ("" if row.values.get(name) is None else row.values[name] for name in self.texts)
        parts = [text_of(part, row.where, name, empty=True) for part, name in zip(found, self.texts, strict=True)]
        whole = " ".join(part.strip() for part in parts if part.strip())
        if not whole:
            refuse(f"{row.where} has no text in {listed(self.texts)}; fill one of them or remove the row.")
        return whole


def _texts(names: Sequence[str], where: str, wanted: Wanted) -> tuple[str, ...]:
    """Return the columns that make the text: those asked for, else the first that holds text, its title before it."""
    if wanted.texts is not None:
        for name in wanted.texts:
            if name not in names:
                refuse(f"{where} has no field {name!r}, only {listed(names)}; name another by --field.")
        return wanted.texts
    found = next((name for name in TEXT_FIELDS if name in names), None)
    if found is None:
        refuse(f"{where} has no field {' or '.join(TEXT_FIELDS)}, only {listed(names)}; name one by --field.")
    return (TITLE, found) if TITLE in names else (found,)
