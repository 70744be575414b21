"""How much a stage has to read: steps, texts and tokens, counted on a sample of its data where that is at hand."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from statistics import fmean

from transformers import PreTrainedTokenizerBase

from antiphon import nano
from antiphon.data.mixtures import Mixture, SetPlan
from antiphon.data.mixtures.mixture_plan import plan as plan_of
from antiphon.errors import ConfigError, DataError, ModelError
from antiphon.model.base import read_base
from antiphon.text.chat import resolve
from antiphon.text.template import DEFAULT, Side, named
from antiphon.text.tokens import LengthBudget, PieceTokenizer, sequences
from antiphon.training.dataset import TEXT, Library, Rows, text_columns, texts_rows
from antiphon.training.recipe import Recipe
from antiphon.training.recipe_tables import Stage
from antiphon.training.stage import loss_kind

SAMPLE = 64
MAX_TOKENS = 512
"""`build`'s default."""
QUERY_DOCUMENT_NEGATIVE = 3
"""Texts of a row of data that is not there to be looked at."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Workload:
    """What the data of a stage asks for."""

    steps: int
    texts: int
    """Texts in a row."""
    tokens_a_text: float
    """Tokens of a text in its template, a mean."""
    content: float
    """Tokens of a text alone."""
    measured: bool
    """Whether they were counted; else every text is taken for as long as it may be."""
    sets: tuple[SetPlan, ...] = ()


def workload(library: Library, stage: Stage) -> Workload:
    """Return what a stage has to read; ConfigError where its length is in epochs and its data is not there."""
    try:
        texts, columns, steps, sets = _read(library, stage)
    except DataError as error:
        logger.warning("The data of stage %s cannot be counted: %s", stage.name, error)
        return _longest(library.recipe, stage)
    recipe = library.recipe
    counted = _count(recipe, stage, texts)
    if counted is None:
        longest = _longest(recipe, stage, steps=steps, texts=columns)
        return Workload(steps, columns, longest.tokens_a_text, longest.content, False, sets)
    return Workload(steps, columns, *counted, True, sets)


def _read(library: Library, stage: Stage) -> tuple[list[str], int, int, tuple[SetPlan, ...]]:
    """Return a sample of texts, the texts of a row, the steps and the sets."""
    data = library.recipe.data_of(stage)
    if data.texts is not None:
        pieces = _pieces(library.recipe) if data.block is not None else None
        rows: Rows = texts_rows(data, stage.batch_size, strict=library.recipe.strict, pieces=pieces)
        dataset = next(iter(rows.datasets.values()))
        return (
            dataset[:SAMPLE][TEXT] if data.block is None else [],
            loss_kind(stage).texts or 1,
            rows.steps(stage),
            rows.sets,
        )
    mixture: Mixture = library.mixture(data)
    planned = plan_of(mixture, stage.batch_size)
    steps = stage.steps if stage.steps is not None else max(1, round((stage.epochs or 1) * planned.batches))
    share = max(1, SAMPLE // len(mixture.parts))
    sample = [
        text
        for part in mixture.parts
        for column in part.sides()
        for text in part.dataset[:share][column]
        if text
    ]  # fmt: skip
    columns = loss_kind(stage).texts or text_columns(mixture.datasets)
    return sample, columns, steps, planned.sets


def _tokenizer(recipe: Recipe) -> PreTrainedTokenizerBase | None:
    """Return the base's tokenizer, None where it is not to be had."""
    base = str(nano.folder()) if recipe.model.base == "nano" else recipe.model.base
    try:
        return read_base(base)[1]
    except ModelError:
        return None


def _pieces(recipe: Recipe) -> PieceTokenizer | None:
    tokenizer = _tokenizer(recipe)
    return None if tokenizer is None else PieceTokenizer(tokenizer)


def _count(recipe: Recipe, stage: Stage, texts: list[str]) -> tuple[float, float] | None:
    """Return mean tokens in the template and alone, None where the base's tokenizer is not to be had."""
    block = recipe.data_of(stage).block
    if block is not None:
        return float(block), float(block)
    tokenizer = _tokenizer(recipe)
    if tokenizer is None:
        return None
    template = resolve(recipe.model.template_spec or named(DEFAULT), tokenizer)
    pieces = PieceTokenizer(tokenizer)
    most = stage.max_tokens or recipe.model.max_tokens or MAX_TOKENS
    side: Side = "query"
    rows = sequences(texts, template, pieces, prompt="", side=side, max_tokens=most)
    lengths = LengthBudget.of(template, pieces, side, most)
    alone = [min(len(row), lengths.budget) for row in pieces.texts(texts, first=False)]
    return fmean(len(row.ids) for row in rows), fmean(alone)


def _longest(recipe: Recipe, stage: Stage, *, steps: int | None = None, texts: int | None = None) -> Workload:
    """Return the workload of texts that are all as long as they may be: query, document and one hard negative."""
    steps = steps or stage.steps
    if steps is None:
        raise ConfigError(
            f"stage.{stage.name} lasts {stage.epochs} epochs of data that is not there, so its steps are unknown; "
            "name the data's folder by data.root, or set steps."
        )
    most = stage.max_tokens or recipe.model.max_tokens or MAX_TOKENS
    template = recipe.model.template_spec or named(DEFAULT)
    copies = 1 if template.compute_matched else max(template.copies("query"), template.copies("document"))
    columns = texts or loss_kind(stage).texts or QUERY_DOCUMENT_NEGATIVE
    return Workload(steps, columns, float(copies * most), float(most), False)
