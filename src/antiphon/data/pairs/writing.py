"""Pairs to files that `load` reads back: JSON lines, or Parquet."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from antiphon.data.pairs.tables import ANCHOR, POSITIVE, negative_columns
from antiphon.data.rows import PARQUET
from antiphon.errors import ConfigError, DataError
from antiphon.files import clean, held_file, reason, write_whole

if TYPE_CHECKING:
    from datasets import Dataset

_ENDINGS = (".jsonl", PARQUET)

logger = logging.getLogger(__name__)


@contextmanager
def held_target(path: str | Path, *, verb: str, force: bool = False) -> Iterator[Path]:
    """Hold a file of pairs while it is made, and give its path; what `force` will replace is told.

    Raises what `check_target` raises, and DataError, saying who holds it, where another process makes the same file.

    Example:
        >>> from antiphon.pairs import held_target
        >>> with held_target("pairs.jsonl", verb="mine") as path:
        ...     path.name
        'pairs.jsonl'
    """
    target = check_target(path, force=True)  # its ending alone
    with held_file(target, verb):  # which puts in order what a killed run left, be the file there or not
        check_target(path, force=force)
        if target.exists():
            logger.warning("%s (%s bytes) will be replaced.", target, f"{target.stat().st_size:,}")
        yield target


def check_target(path: str | Path, *, force: bool = False) -> Path:
    """Return the path of a file to write; ConfigError for an ending that is not written, or a file that is there.

    Example:
        >>> from antiphon.pairs import check_target
        >>> check_target("pairs.jsonl").name
        'pairs.jsonl'
    """
    target = Path(path)
    if target.suffix.lower() not in _ENDINGS:
        raise ConfigError(f"{target} ends in {target.suffix!r}; pairs are written as {' or '.join(_ENDINGS)}.")
    if target.exists() and not force:
        raise ConfigError(f"{target} exists already; name another file, or take --force.")
    return target


def write(pairs: Dataset, path: str | Path, *, force: bool = False) -> Path:
    """Write pairs to a new file with anchor, positive and negatives (a list), and return it; never half of one.

    Raises ConfigError for a path that cannot be written to, DataError for a full disk.

    Example:
        >>> from antiphon.pairs import Pair, load, to_dataset, write
        >>> path = write(to_dataset([Pair("sort a list", "Return a sorted list.")]), "pairs.jsonl")
        >>> load(path)[0]["anchor"]
        'sort a list'
    """
    target = check_target(path, force=force)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        clean(target.parent)
        write_whole(target, _content(pairs, target))
    except OSError as error:
        raise DataError(f"{target} could not be written ({reason(error)}); nothing was left there.") from error
    return target


def _content(pairs: Dataset, target: Path) -> bytes | memoryview:
    if target.suffix.lower() == PARQUET:
        import pyarrow as pa
        import pyarrow.parquet as pq

        buffer = BytesIO()
        pq.write_table(pa.Table.from_pylist(list(_rows(pairs))), buffer)
        return buffer.getbuffer()
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in _rows(pairs)).encode()


def _rows(pairs: Dataset) -> Iterator[dict[str, Any]]:
    columns = negative_columns(pairs.column_names)
    for row in pairs.with_format(None):
        negatives = [row[name] for name in columns if row[name]]
        yield {ANCHOR: row[ANCHOR], POSITIVE: row[POSITIVE], "negatives": negatives}
