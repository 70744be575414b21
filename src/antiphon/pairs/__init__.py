"""Training pairs: from files, folders, the hub and docstrings to one shape of data set; and what an evaluation shares.

Which sets are mixed, and how, is mixtures.py's business.
"""

from antiphon.pairs.loading import is_there, load, resolve
from antiphon.pairs.overlapping import EvaluationTexts, Match, Overlap, overlap, reading, without
from antiphon.pairs.reading import Pair
from antiphon.pairs.tables import ANCHOR, LABEL, POSITIVE, negative_columns, to_dataset
from antiphon.pairs.texts import texts_of
from antiphon.pairs.writing import check_target, write

__all__ = [
    "ANCHOR",
    "LABEL",
    "POSITIVE",
    "EvaluationTexts",
    "Match",
    "Overlap",
    "Pair",
    "check_target",
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
