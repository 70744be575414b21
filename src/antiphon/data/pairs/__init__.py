"""Training pairs: from files, folders, the hub and docstrings to one shape of data set; and what an evaluation shares.

Which sets are mixed, and how, is mixtures.py's business.
"""

from antiphon.data.pairs.columns import Pair, column_map
from antiphon.data.pairs.evaluated_texts import texts_of
from antiphon.data.pairs.loading import is_there, load, resolve
from antiphon.data.pairs.overlap import EvaluationTexts, Match, Overlap, overlap, reading, without
from antiphon.data.pairs.tables import ANCHOR, LABEL, POSITIVE, negative_columns, to_dataset
from antiphon.data.pairs.writing import check_target, held_target, write

__all__ = [
    "ANCHOR",
    "LABEL",
    "POSITIVE",
    "EvaluationTexts",
    "Match",
    "Overlap",
    "Pair",
    "check_target",
    "column_map",
    "held_target",
    "is_there",
    "load",
    "negative_columns",
    "overlap",
    "reading",
    "resolve",
    "texts_of",
    "to_dataset",
    "without",
    "write",
]
