"""From the name of a source to a data set of pairs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from antiphon.data.beir import BeirFolder
from antiphon.data.docstrings import fingerprint, harvest, of_standard_library, site_packages
from antiphon.data.docstrings import pairs as docstring_pairs
from antiphon.data.hub_sets import hub_table, is_hub_name
from antiphon.data.pairs.columns import Pair
from antiphon.data.pairs.pair_folders import read_beir, read_echo_data, read_table
from antiphon.data.pairs.tables import to_dataset
from antiphon.data.rows import is_table_name, open_table
from antiphon.data.skipped import Skipped
from antiphon.data.stored_tables import stored_table
from antiphon.errors import ConfigError

if TYPE_CHECKING:
    from datasets import Dataset

DOCSTRINGS = "docstrings"


def load(
    source: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    limit: int | None = None,
    negatives: int | None = None,
    skipped: Skipped | None = None,
) -> Dataset:
    r"""Return the training pairs of a source: a `datasets.Dataset` with anchor, positive, negative_1..n.

    `source` is a .jsonl, .json, .csv, .tsv or .parquet file, packed or plain (see data/rows.py); a folder of JSONL
    files, one a set (echo-data); one of `save_to_disk` or of Parquet files, its split train where it has several; one
    in BEIR layout with qrels/train.tsv; "docstrings" (summary and body of those of the installed packages; the standard
    library's are kept for tests); or a data set of the hub, `owner/name`, with `:configuration` and `:split` behind it
    where it has more than one.

    `columns` maps anchor, positive, negative (or negative_1 ...) to the names of the source; without it anchor, query
    or question; positive, pos or answer; negative, negatives, neg or negative_1 ... are looked for, over all rows, and
    the names of FlagEmbedding, Tevatron, DPR and GritLM. A field of negatives may hold a string or a list. What no pair
    is made of is counted in `skipped` and told in the log; one that is strict refuses it.

    Only the first `limit` pairs are read, and `negatives` of each row's at most.

    Where rows have different numbers of negatives, '' stands for a missing one and the column `label` holds a list of
    n whole numbers: 1 for a real negative, 0 for ''.

    Raises DataError for a source that is missing or empty, and for a bad line, with file and line; ConfigError for a
    setting that cannot be used.

    Example:
        >>> from pathlib import Path
        >>> from antiphon.pairs import load
        >>> _ = Path("pairs.csv").write_text("q,a\nsort a list,Return a sorted list.\n", encoding="utf-8")
        >>> load("pairs.csv", columns={"anchor": "q", "positive": "a"})[0]
        {'anchor': 'sort a list', 'positive': 'Return a sorted list.'}
    """
    for name, value, least in (("limit", limit, 1), ("negatives", negatives, 0)):
        if value is not None and value < least:
            raise ConfigError(f"{name} is {value}; a whole number of at least {least} is wanted.")
    passed_over = skipped or Skipped()
    found = _pairs(source, columns, passed_over)
    dataset = to_dataset(islice(found, limit), str(source), negatives=negatives)
    passed_over.tell(str(source))
    return dataset


def resolve(source: str, root: str | Path | None) -> str:
    """Return a source as seen from the folder `root`, where it names a file or folder that is there; else as it is.

    Example:
        >>> from antiphon.pairs import resolve
        >>> resolve("docstrings", "a/folder")
        'docstrings'
    """
    if root is None or source == DOCSTRINGS or Path(source).is_absolute():
        return source
    inside = Path(root) / source
    return str(inside) if inside.exists() or is_table_name(source) else source


def is_there(source: str) -> bool:
    """Return whether a source can be looked for: a file or folder that exists, docstrings, or a name of the hub.

    Example:
        >>> from antiphon.pairs import is_there
        >>> is_there("docstrings"), is_there("no/such/file.jsonl")
        (True, False)
    """
    return source == DOCSTRINGS or Path(source).exists() or is_hub_name(source)


def _pairs(source: str | Path, columns: Mapping[str, str] | None, skipped: Skipped) -> Iterator[Pair]:
    path, name = Path(source), str(source)
    if name == DOCSTRINGS:
        return _docstrings()
    if path.is_dir():
        beir = BeirFolder.at(path)
        if beir is not None:
            return read_beir(beir, skipped)
        stored = stored_table(path, "train")
        return read_echo_data(path, columns, skipped) if stored is None else read_table(stored, columns, skipped)
    if path.exists() or not is_hub_name(name):
        return read_table(open_table(path), columns, skipped)
    return read_table(hub_table(name), columns, skipped)


def _docstrings() -> Iterator[Pair]:
    """Yield the pairs of installed packages, without what the standard library says too."""
    kept_apart = of_standard_library()
    summaries = {pair.summary.lower() for pair in docstring_pairs(kept_apart)}
    found = harvest(site_packages(), without=[fingerprint(docstring.text) for docstring in kept_apart])
    for pair in docstring_pairs(found):
        if pair.summary.lower() not in summaries:
            yield Pair(pair.summary, pair.body)
