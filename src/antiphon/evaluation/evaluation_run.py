"""Evaluate: tasks one by one, each score kept as soon as it is there.

A score is kept under a hash of all that it depends on: the model's weights, tokenizer, configuration and template, the
prompts, the data, the seed and mteb's version. So no model is ever shown another's score, and a run that died goes on.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer

from antiphon import compat, nano
from antiphon.corpus.ray_cluster import Engine, RaySettings, settings_of
from antiphon.data.processes import rank, world
from antiphon.encoding import Compile
from antiphon.evaluation import instructions as instructing
from antiphon.evaluation import randomness, ranks
from antiphon.evaluation.embedder import Encode, ModelEncode, preparation_of
from antiphon.evaluation.instructions import Instructions
from antiphon.evaluation.local_readers import OwnDocument
from antiphon.evaluation.progress import Listener, Meter, listening
from antiphon.evaluation.ray_tasks import scored_by_ray
from antiphon.evaluation.score_cache import key_of
from antiphon.evaluation.scores import SCORES, Scores, TaskScore
from antiphon.evaluation.selection import Selected, SelectedProbe, Selection, select
from antiphon.evaluation.task_run import Turns
from antiphon.evaluation.text_cut import cutting, identity_of_cut
from antiphon.evaluation.trained_on import TrainedOn
from antiphon.evaluation.vector_store import VectorStore
from antiphon.files import HeldFolder, cache_folder, check_place, held
from antiphon.model.build import check_embedder
from antiphon.model.fingerprint import cache_key
from antiphon.text.template import Template, template_of

SEED = 42
"""mteb's own."""
Tasks = str | Path | Sequence[str | Path]


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """How to evaluate, beside the model and the tasks."""

    instructions: Instructions = None
    limit: int | None = None
    seed: int = SEED
    budget: int | None = None
    cut: int | None = None
    compile: Compile = False
    cache: Path | None = None
    trained_on: TrainedOn | None = None
    workers: RaySettings | None = None
    """Ray's, which score the tasks in the place of this process."""


def evaluate(  # noqa: PLR0913  (the public surface)
    model: SentenceTransformer,
    tasks: Tasks,
    *,
    out: str | Path | None = None,
    instructions: Instructions = None,
    limit: int | None = None,
    seed: int = SEED,
    budget: int | None = None,
    cut: int | None = None,
    compile: Compile = False,
    label: str | None = None,
    cache: str | Path | bool = True,
    listener: Listener | None = None,
    progress: bool | None = None,
    own_document: OwnDocument = "auto",
    strict: bool = False,
    trained_on: Sequence[str | Path] = (),
    engine: Engine | RaySettings = "local",
) -> Scores:
    r"""Score a model on tasks, by mteb's metrics; `scores["STSBenchmark"].main` is a float between 0 and 1.

    `tasks` are names of mteb's tasks, named sets (`antiphon.evaluation.SETS`), or local files and folders. `limit` caps
    the examples of local tasks, drawn with the seed. `instructions` is a table or JSON file by task name, over the
    shipped ones, or "own" for the model's own prompts. `out` is a folder for scores and examples. `label` names the run
    in tables. `budget` is the tokens of a forward pass, probed without it, and `compile` is the Encoder's. `cut` cuts
    texts to whole words of at most so many tokens, as LLM2Vec and Anchor do at 400. `cache` is True for the user's
    cache, a folder, or False. `progress` shows a bar (None: in interactive use), or a `listener` is told.

    `own_document` says what becomes of the document that has a query's own id: "leave-out" of its ranking, as BEIR's
    protocol has it, "keep", or "auto": left out where most of such documents read as their queries do. What is passed
    over in local files is told in a score's notes; `strict` refuses it. `trained_on` are sources of training pairs;
    notes tell how many rows hold a text of a task. Under torchrun the ranks share the tasks and all return all scores.
    `engine` "ray" (`RaySettings`) has Ray's workers score the tasks, whose files must be where all of them see them.

    Raises ConfigError for a task or setting that cannot be used and for an instruction that is missing, DataError for
    data that cannot be scored honestly, ModelError for a vector that is NaN or zero.

    Example:
        >>> import antiphon, pathlib
        >>> _ = pathlib.Path("pairs.tsv").write_text("sentence1\tsentence2\tscore\n" + "".join(
        ...     f"sort {a} items\tsort {b} items\t{5 - abs(a - b)}\n" for a in range(4) for b in range(4)))
        >>> scores = antiphon.evaluate(antiphon.build("nano"), ["pairs.tsv"], cache=False)
        >>> -1 <= scores["pairs"].main <= 1
        True
    """
    check_embedder(model, "evaluate")
    folder = None if cache is False else cache_folder() if cache is True else Path(cache)
    settings = EvaluationSettings(
        instructions=instructions, limit=limit, seed=seed, budget=budget, compile=compile, cut=cut, cache=folder,
        trained_on=TrainedOn.read(trained_on) if trained_on else None, workers=settings_of(engine),
    )  # fmt: skip
    with _held(out) as place, randomness.kept(), ranks.joined():
        selected = select(tasks, limit=limit, seed=seed, own_document=own_document, strict=strict)
        with listening(listener, progress) as told:
            scores = run(model, selected, settings, label=label, listener=told, spread=True)
        if place is not None:
            scores.write(place)
    return scores


@contextmanager
def _held(out: str | Path | None) -> Iterator[HeldFolder | None]:
    """Hold the folder of the scores before an hour is spent; only the first rank writes."""
    if out is None or rank() != 0:
        yield None
        return
    with held(out, "evaluate") as place:
        check_place(place.path, SCORES)
        yield place


def run(  # noqa: PLR0913  (what `evaluate` and the evaluator of a training need)
    model: SentenceTransformer,
    selected: Sequence[Selection],
    settings: EvaluationSettings,
    *,
    label: str | None = None,
    identity: str | None = None,
    encode: Encode | None = None,
    listener: Listener | None = None,
    spread: bool = False,
) -> Scores:
    """Score a model on selected tasks, in order; instructions are looked up for all of them before any is run.

    `identity` stands for the model's own cache key, for a model that changes from call to call and has no cache;
    `encode` is what embeds, where that is there already. `spread` gives each rank a share of the tasks.
    """
    given = instructing.read(settings.instructions)
    words = {
        task.name: instructing.chosen(model, settings.instructions, given, task.name, task.metadata)
        for task in selected
        if isinstance(task, Selected)
    }
    own = instructing.says_own(model, settings.instructions)
    whole = identity or cache_key(model)
    identity = identity_of_cut(whole, settings.cut)
    reader = encode or ModelEncode(model, budget=settings.budget, compile=settings.compile)
    encode, prepare = cutting(reader, model, settings.cut), preparation_of(reader)
    mine, sizes = _share(selected, spread=spread, sized=listener is not None or settings.workers is not None)
    meter = Meter(listener, sizes)

    def score() -> dict[str, TaskScore]:
        meter.estimate(encode)
        found: dict[str, TaskScore] = {}
        with _store(settings.cache, identity) as store:
            turns = Turns(model, identity, settings.seed, encode, settings.cache, store, meter.embedded, prepare)
            turns = replace(turns, trained_on=settings.trained_on)
            for number, task in enumerate(mine):
                meter.begin(task.name, number)
                if isinstance(task, SelectedProbe):
                    found[task.name] = turns.probe(task)
                else:
                    prompts = instructing.prompts_for(model, words[task.name], own=own)
                    found[task.name] = turns.task(task, words[task.name], prompts)
                meter.end(number)
        return found

    if settings.workers is None:
        everything: Mapping[str, TaskScore] = ranks.gathered(score) if spread else score()
    else:
        alone = partial(_alone, replace(settings, workers=None, instructions=given or settings.instructions), whole)
        everything = scored_by_ray(model, mine, sizes, alone, settings.workers, meter)
    spec = template_of(model)
    return Scores(
        model=_name(model),
        label=str(label or getattr(model.model_card_data, "model_name", None) or (spec.name if spec else "model")),
        revision=key_of({"model": identity, "instructions": sorted(words.items())}),
        instructions=instructing.digest(words),
        tasks={task.name: everything[task.name] for task in selected},
        settings=_told(settings, spec),
    )


def _alone(settings: EvaluationSettings, identity: str, model: SentenceTransformer, task: Selection) -> TaskScore:
    """Return the score of a task, in a worker."""
    with randomness.kept():
        return run(model, [task], settings, identity=identity).tasks[task.name]


def _told(settings: EvaluationSettings, template: Template | None) -> dict[str, Any]:
    """Return the settings that scores are kept with."""
    told = {"seed": settings.seed, "limit": settings.limit, "template": template.name if template else None}
    return told if settings.cut is None else {**told, "cut": settings.cut}


def _share(
    selected: Sequence[Selection], *, spread: bool, sized: bool
) -> tuple[Sequence[Selection], Sequence[int | None]]:
    """Return this rank's tasks, and their sizes where those are wanted."""
    spread = spread and world() > 1
    sizes = [task.size() if sized or spread else None for task in selected]
    if not spread:
        return selected, sizes
    usual = statistics.median([size for size in sizes if size] or [1])
    numbers = ranks.shares([size or usual for size in sizes], world())[rank()]
    return [selected[number] for number in numbers], [sizes[number] for number in numbers]


@contextmanager
def _store(cache: Path | None, identity: str) -> Iterator[VectorStore | None]:
    store = None if cache is None else VectorStore(cache / "vectors" / f"{identity[:32]}.sqlite")
    try:
        yield store
    finally:
        if store is not None:
            store.close()


def _name(model: SentenceTransformer) -> str:
    backbone = getattr(model[0], "model", None)
    config = getattr(backbone, "config", None)
    name = (compat.source_of(config) if config is not None else "") or type(model[0]).__name__
    return "nano" if name == str(nano.folder()) else name
