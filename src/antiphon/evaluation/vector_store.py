"""Vectors of one model on disk, for the next run; a store that is torn is made anew, since nothing in it is lost."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from antiphon.errors import DataError

Outcome = TypeVar("Outcome")
Vectors = npt.NDArray[np.float32]

MOST_BYTES = 8 * 2**30
"""A store of vectors that has grown beyond this is read and no longer added to."""
_TORN = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
"""The file is no database, a broken one, or has another table in it."""
_BESIDE = ("", "-journal", "-wal", "-shm")

logger = logging.getLogger(__name__)


class VectorStore:
    """Vectors of one model on disk; several processes may read and write it."""

    def __init__(self, path: Path) -> None:
        """Open the file, or make it; DataError where it cannot be written to."""
        self._path = path
        self._database: sqlite3.Connection | None = None
        self._try(lambda database: None)

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Vectors]:
        """Return those of the vectors (D,) that are there and whole."""

        def read(database: sqlite3.Connection) -> dict[bytes, bytes]:
            rows = ((key, database.execute("SELECT vector FROM vectors WHERE key = ?", (key,))) for key in keys)
            return {key: row[0] for key, found in rows if (row := found.fetchone()) is not None}

        found = self._try(read)
        lengths = [len(raw) for raw in found.values() if isinstance(raw, bytes)]
        usual = max(set(lengths), key=lengths.count, default=0)
        whole = {key: np.frombuffer(raw, dtype="<f4") for key, raw in found.items() if _is_whole(raw, usual)}
        if len(whole) < len(found):
            logger.warning("%s holds %d broken vectors, which are made again.", self._path, len(found) - len(whole))
        return whole

    def put(self, vectors: dict[bytes, Vectors]) -> None:
        """Add vectors, in one transaction; DataError where the disk is full."""
        rows = [(key, np.ascontiguousarray(vector, dtype="<f4").tobytes()) for key, vector in vectors.items()]

        def write(database: sqlite3.Connection) -> None:
            if self._path.stat().st_size <= MOST_BYTES:
                with database:
                    database.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", rows)

        self._try(write)

    def close(self) -> None:
        """Close the file."""
        if self._database is not None:
            self._database.close()
            self._database = None

    def _try(self, work: Callable[[sqlite3.Connection], Outcome]) -> Outcome:
        """Return what the work gives, on a new file where the old one is torn."""
        try:
            return self._worked(work)
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode & 0xFF not in _TORN:
                raise self._refused(error) from error
            logger.warning("%s is torn (%s) and is made anew; its vectors are computed again.", self._path, error)
        self.close()
        try:
            for ending in _BESIDE:
                self._path.with_name(self._path.name + ending).unlink(missing_ok=True)
            return self._worked(work)
        except (OSError, sqlite3.DatabaseError) as error:
            raise self._refused(error) from error

    def _worked(self, work: Callable[[sqlite3.Connection], Outcome]) -> Outcome:
        if self._database is None:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise self._refused(error) from error
            self._database = sqlite3.connect(self._path, timeout=120)
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB) WITHOUT ROWID"
            )
        return work(self._database)

    def _refused(self, error: Exception) -> DataError:
        return DataError(f"The vectors in {self._path} could not be kept ({error}); make room, or name another cache.")


def _is_whole(raw: object, length: int) -> bool:
    if not isinstance(raw, bytes) or len(raw) != length or length % 4:
        return False
    return bool(np.isfinite(np.frombuffer(raw, dtype="<f4")).all())
