"""One task's turn: the score that was kept, or the run that gives it."""

from __future__ import annotations

import json
import random
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mteb
import numpy as np
from mteb.abstasks import AbsTask
from mteb.cache import ResultCache
from sentence_transformers import SentenceTransformer

from antiphon.errors import DataError
from antiphon.evaluation.costs import cost_of
from antiphon.evaluation.embedder import CountingEmbedder, Encode
from antiphon.evaluation.examples import predictions, sample_of
from antiphon.evaluation.mteb_encoder import TaskEncoder
from antiphon.evaluation.probes import Context
from antiphon.evaluation.score_cache import key_of, read_score, write_score
from antiphon.evaluation.scores import PROBE, TaskScore
from antiphon.evaluation.selection import Selected, SelectedProbe
from antiphon.evaluation.ties import tie_notes
from antiphon.evaluation.trained_on import TrainedOn
from antiphon.evaluation.vector_store import VectorStore
from antiphon.files import scratch
from antiphon.text.template import Side

_LOADED_AT_ONCE = 1024


@dataclass(frozen=True)
class Turns:
    """What all tasks of a run share."""

    model: SentenceTransformer
    identity: str
    seed: int
    encode: Encode
    cache: Path | None
    store: VectorStore | None
    on_texts: Callable[[Sequence[str]], None] | None = None
    prepare: Callable[[], object] | None = None
    trained_on: TrainedOn | None = None
    """Training pairs that a task's texts are looked for in."""

    def task(self, task: Selected, instruction: str, prompts: Mapping[Side, str]) -> TaskScore:
        """Return the score of a task."""
        loaded, notes = task.load()
        parts = {
            "model": self.identity,
            "prompts": dict(prompts),
            "task": task.name,
            "revision": revision_of(loaded),
            "splits": [loaded.eval_splits, loaded.hf_subsets],
            "seed": self.seed,
            "mteb": mteb.__version__,
            **({} if self.trained_on is None else {"trained_on": self.trained_on.identity}),
        }
        return self._kept(parts, lambda: self._run(loaded, task.name, instruction, prompts, notes))

    def probe(self, probe: SelectedProbe) -> TaskScore:
        """Return the score of a probe, its main figure."""
        revision = probe.material.revision
        parts = {"model": self.identity, "probe": probe.name, "revision": revision, "seed": self.seed}
        return self._kept(parts, lambda: self._run_probe(probe, revision))

    def _kept(self, parts: Mapping[str, Any], run: Callable[[], TaskScore]) -> TaskScore:
        if self.cache is None:
            return run()
        key = key_of(parts)
        known = read_score(self.cache, key)
        if known is None:
            known = run()
            write_score(self.cache, key, known)
        return known

    def _embedder(self) -> CountingEmbedder:
        return CountingEmbedder(self.encode, store=self.store, on_texts=self.on_texts, prepare=self.prepare)

    def _run(
        self, task: AbsTask, name: str, instruction: str, prompts: Mapping[Side, str], notes: tuple[str, ...]
    ) -> TaskScore:
        reseed(task, self.seed)
        embedder = self._embedder()
        called = f"antiphon/{self.identity[:16]}"
        wrapped = TaskEncoder(self.model, embedder, prompts, name=called, revision=self.identity)
        with scratch() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of scikit-learn and mteb, about labels that no text was given
            outcome = mteb.evaluate(
                wrapped,
                task,
                cache=ResultCache(folder / "mteb"),
                co2_tracker=False,
                encode_kwargs={"batch_size": _LOADED_AT_ONCE, "show_progress_bar": False},
                prediction_folder=folder / "predictions",
                show_progress_bar=False,
            ).task_results[0]
            main, metrics = float(outcome.get_score()), _metrics(outcome)
            predicted = predictions(task, folder / "predictions")
            sample = sample_of(task, main, metrics, predicted)
            notes = (*notes, *tie_notes(task, predicted))
            if self.trained_on is not None:
                notes += self.trained_on.notes(text for texts in embedder.seen.values() for text in texts)
            results = _results(folder / "mteb")
        if not np.isfinite(main):
            raise DataError(f"The score of {name} is {main}: its predictions are all alike, or its gold values are.")
        return TaskScore(
            name=name,
            category=str(task.metadata.type),
            metric=str(task.metadata.main_score),
            main=main,
            metrics={key: value for key, value in metrics.items() if isinstance(value, float) and np.isfinite(value)},
            revision=revision_of(task),
            instruction=instruction,
            cost=cost_of(self.model, embedder),
            notes=notes,
            sample=sample,
            results=results,
        )

    def _run_probe(self, probe: SelectedProbe, revision: str) -> TaskScore:
        found = probe.run(Context(self.model, self._embedder(), probe.material))
        return TaskScore(
            name=probe.name,
            category=PROBE,
            metric=found.metric,
            main=found.main,
            metrics=dict(found.metrics),
            revision=revision,
            notes=found.notes,
            details=dict(found.details),
            sample=found.sample,
        )


def reseed(task: AbsTask, seed: int) -> None:
    """Set the generators of a task back, so that its second run draws what its first did."""
    for part in (task, *getattr(task.metadata, "tasks", ())):
        part.seed = seed
        part.rng_state, part.np_rng = random.Random(seed), np.random.default_rng(seed)


def revision_of(task: AbsTask) -> str:
    """Return the revision of a task's data, of all of them where it has parts."""
    parts = getattr(task.metadata, "tasks", None) or [task]
    return " ".join(str(part.metadata.dataset["revision"]) for part in parts)


def _results(cache: Path) -> dict[str, Any]:
    """Return the files that mteb wrote of a task and its parts, by the task's name."""
    files = (file for file in cache.rglob("*.json") if file.name != "model_meta.json")
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in sorted(files)}


def _metrics(outcome: Any) -> dict[str, Any]:
    """Return the metrics of the first split and subset, as mteb names them."""
    rows = next(iter(outcome.scores.values()))
    return {
        name: float(value) if isinstance(value, int | float | np.number) and not isinstance(value, bool) else value
        for name, value in rows[0].items()
    }
