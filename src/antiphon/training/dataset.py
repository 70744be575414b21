"""The rows of a stage: pairs of a mixture, or plain texts, as sentence-transformers' trainer takes them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from antiphon.data import sources
from antiphon.data.mixtures import Mixture, PairSettings, SetPlan, read_settings, settings_of
from antiphon.data.mixtures.mixture_plan import plan as plan_of
from antiphon.data.pairs import LABEL, texts_of
from antiphon.data.processes import processes
from antiphon.data.sampling import Sampling
from antiphon.data.skipped import Skipped
from antiphon.errors import ConfigError, DataError
from antiphon.text.template import Side
from antiphon.text.tokens import PieceTokenizer
from antiphon.training.losses import LOSSES
from antiphon.training.losses.collating import pieces_of
from antiphon.training.recipe import Recipe
from antiphon.training.recipe_tables import Data, Stage
from antiphon.training.token_blocks import token_blocks

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict
    from sentence_transformers import SentenceTransformer

TEXT = "text"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rows:
    """What the trainer gets, and what it is told about it."""

    datasets: DatasetDict
    prompts: dict[str, dict[str, str]] | None
    instructions: dict[str, str]
    """What the model is to say by itself once it is trained, by the name of the prompt."""
    router_mapping: dict[str, dict[str, Side]] | None
    sampler: Sampling
    sets: tuple[SetPlan, ...]
    batches: int
    """Global batches of an epoch."""

    def steps(self, stage: Stage) -> int:
        """Return the steps of the stage; ConfigError where its data fills none."""
        return stage.steps if stage.steps is not None else max(1, round((stage.epochs or 1) * self.batches))

    def horizon(self, stage: Stage) -> int:
        """Return the steps after which the stage's schedule would end.

        Raises ConfigError where that is before the stage does.
        """
        steps = self.steps(stage)
        horizon = stage.schedule_steps or steps
        if stage.schedule_epochs is not None:
            horizon = round(stage.schedule_epochs * self.batches)
        if horizon < steps:
            raise ConfigError(
                f"stage.{stage.name}: the schedule ends after {horizon} steps and the stage has {steps}, so that the "
                "rest would learn nothing; raise schedule_epochs or schedule_steps, or leave them out."
            )
        return horizon

    def described(self) -> list[dict[str, Any]]:
        """Return what the record of the run says of the data."""
        return [
            {"set": one.name, "rows": one.rows, "fingerprint": one.fingerprint, "skipped": dict(one.skipped)}
            for one in self.sets
        ]


class Library:
    """The mixtures of a run, each read once, however many stages use it."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self._read: dict[str, Mixture] = {}

    def mixture(self, data: Data) -> Mixture:
        """Return a mixture, overlap with an evaluation reported and, where asked for, left out."""
        key = data.model_dump_json()
        if key not in self._read:
            self._read[key] = _mixture_of(self.recipe, data)
        return self._read[key]


def rows_of(library: Library, stage: Stage, model: SentenceTransformer) -> Rows:
    """Read a stage's data for the trainer.

    Raises DataError for data that cannot be read, or is too little for a batch; ConfigError for settings of it.
    """
    data = library.recipe.data_of(stage)
    # a process's own batch is what the sampler gives it: without accumulation's and all processes' rows together
    size = (stage.device_batch_size or stage.batch_size // processes().num_processes) * processes().num_processes
    if data.texts is not None:
        if data.block is not None and not LOSSES[stage.loss].blocks:
            raise ConfigError(
                f"stage.{stage.name}: blocks of tokens are what mntp and next_token read, and {stage.loss} reads a "
                "text a row (as LLM2Vec's SimCSE does); leave data.block out."
            )
        return texts_rows(data, size, strict=library.recipe.strict, pieces=pieces_of(model))
    mixture = library.mixture(data)
    planned = plan_of(mixture, size, model=model)
    accumulation = stage.batch_size // size
    return Rows(
        datasets=mixture.datasets,
        prompts=mixture.prompts(model),
        instructions=mixture.instructions,
        router_mapping=mixture.router_mapping,
        sampler=mixture.sampling,
        sets=planned.sets,
        batches=max(1, planned.batches // accumulation),
    )


def _mixture_of(recipe: Recipe, data: Data) -> Mixture:
    settings = pair_settings(recipe, data)
    mixture = Mixture.of(settings, seed=recipe.seed, root=data.root, limit=data.limit, strict=recipe.strict)
    if data.overlap is None:
        return mixture
    found = mixture.overlap(texts_of(data.overlap.texts), near=data.overlap.near)
    for name, one in found.items():
        if one.rows:
            logger.warning("Set %s and %s: %s", name, data.overlap.texts, one)
    return mixture.without(found) if data.overlap.drop else mixture


def pair_settings(recipe: Recipe, data: Data) -> tuple[PairSettings, ...]:
    """Return the sets of a mixture that a run takes; ConfigError for a name that it has not."""
    if data.mixture is not None:
        path = Path(recipe.folder) / data.mixture
        settings = read_settings(path, sampled=data.sampled)
        where = str(path)
    else:
        where = f"{recipe.name}: data.sets"
        settings = settings_of(data.sets, where, sampled=data.sampled)
    unknown = set(data.only) - {one.name for one in settings}
    if unknown:
        raise ConfigError(
            f"data.only names {', '.join(sorted(unknown))}, and {where} has {', '.join(one.name for one in settings)}."
        )
    return tuple(one for one in settings if not data.only or one.name in data.only)


def texts_rows(data: Data, size: int, *, strict: bool = False, pieces: PieceTokenizer | None = None) -> Rows:
    """Return the rows of plain texts, packed by the tokenizer where blocks are asked for.

    Raises DataError where they are fewer than a batch of `size`, or where blocks cannot be counted without a tokenizer.
    """
    from datasets import Dataset, DatasetDict

    source = data.texts_source
    assert source is not None  # the caller's choice
    skipped = Skipped(strict=strict)
    texts = [record.text for record in islice(sources.read(source, field=data.field, skipped=skipped), data.limit)]
    skipped.tell(source)
    texts = [text for text in texts if text.strip()]
    rows: list[str] | list[list[int]] = texts
    if data.block is not None:
        if pieces is None:
            raise DataError(f"How many blocks {source} gives cannot be counted without the base's tokenizer.")
        rows = token_blocks(texts, pieces, data.block)
    if len(rows) < size:
        kind = "texts" if data.block is None else f"blocks of {data.block} tokens"
        raise DataError(f"{source} has {len(rows)} {kind}, and a batch has {size}; lower batch_size or add texts.")
    digest = hashlib.blake2b("\0".join(texts).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    batches = len(rows) // size
    name = Path(source).stem or TEXT
    described = SetPlan(name, len(texts), len(rows), batches, batches, None, digest, skipped=skipped.counts)
    dataset: Dataset = Dataset.from_dict({TEXT: rows})
    return Rows(DatasetDict({name: dataset}), None, {}, None, Sampling(names=(name,)), (described,), batches)


def text_columns(datasets: Mapping[str, Dataset]) -> int:
    """Return the most texts that a row has."""
    texts: list[int] = [sum(name != LABEL for name in dataset.column_names) for dataset in datasets.values()]
    return max(texts)
