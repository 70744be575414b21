"""What mteb's leaderboard is sent of a model: its metadata, and results in the layout of mteb's results repository.

results/ORG__NAME/REVISION/TASK.json, model_meta.json, run_settings.jsonl    for embeddings-benchmark/results
NAME.py                                                                      for mteb/models/model_implementations
mock_run.md                                                                  mteb's own check of an encoder
submission.json                                                              what was trained on, task by task
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import metadata
from pathlib import Path
from typing import Any, get_args

import mteb
from mteb.cache import ResultCache
from mteb.models.model_meta import ModelMeta
from mteb.models.sentence_transformer_wrapper import SentenceTransformerEncoderWrapper
from mteb.results import TaskResult
from mteb.types import Licenses
from sentence_transformers import SentenceTransformer

from antiphon.errors import ConfigError, ModelError
from antiphon.evaluation.embedder import CountingEmbedder, ModelEncode
from antiphon.evaluation.evaluation_run import SEED
from antiphon.evaluation.instructions import prompts_for, takes_instruction
from antiphon.evaluation.mteb_encoder import TaskEncoder
from antiphon.evaluation.scores import Scores
from antiphon.evaluation.selection import is_of_mteb
from antiphon.files import held
from antiphon.model.fingerprint import fingerprint
from antiphon.training.model_card import base_of, is_hub_id, licence_of, run_of
from antiphon.training.record import RunRecord

MARK = "submission.json"
_NAME = re.compile(r"([\w.-]+/[\w.-]+)(?:@([\w.-]+))?")
_MEGABYTE = 1 << 20
TO_FILL_IN = ("release_date", "languages", "license", "training_datasets", "public_training_data", "citation")
"""Fields of mteb's metadata that neither a folder nor a record may know; what is not known stays None."""
TRAINED_ON: Mapping[str, tuple[str, ...]] = {
    "dureader": ("DuRetrieval",),
    "fever": ("FEVER",),
    "hotpot_qa": ("HotpotQA",),
    "miracl": ("MIRACLRetrieval",),
    "mrtydi": ("MrTidyRetrieval",),
    "allnli": (),
    "eli5_question_answer": (),
    "msmarco_document": ("MSMARCO",),
    "msmarco_passage": ("MSMARCO",),
    "nq": ("NQ",),
    "quora_duplicates": ("QuoraRetrieval",),
    "squad": (),
    "t2ranking": ("T2Retrieval",),
    "trivia_qa": (),
}
"""mteb's tasks whose training split a set of echo-data is, by the set's name; some are of no task."""


@dataclass(frozen=True, kw_only=True)
class Submission:
    """What was written."""

    folder: Path
    meta: ModelMeta
    tasks: tuple[str, ...]
    """Those of which results were written."""
    left_out: tuple[str, ...]
    """Local tasks and probes, which the leaderboard has not."""
    zero_shot: Mapping[str, bool | None]
    """By task whether no set of the training is its own; None where it is not known what was trained on."""


def check_name(name: str) -> tuple[str, str | None]:
    """Return a hub id and the revision behind its @, None without one; ConfigError for what is neither.

    Example:
        >>> check_name("me/my-embedder@1a2b3c")
        ('me/my-embedder', '1a2b3c')
    """
    found = _NAME.fullmatch(name)
    if found is None:
        raise ConfigError(f"{name!r} is no hub id; the leaderboard wants OWNER/NAME, or OWNER/NAME@COMMIT.")
    return found.group(1), found.group(2)


def submit(model: SentenceTransformer, scores: Scores, out: str | Path, *, name: str, source: str = "") -> Submission:
    """Write the folder; mteb's `mock_run` has passed on the model then.

    `name` is the hub id that the model has or will have, with its commit behind an @; `source` is what it was opened
    by. Raises ConfigError for a name that is none and for scores that were not made by mteb's rules (another seed, cut
    texts), ModelError where mteb's check fails, DataError where something stands in the folder.
    """
    hub_id, revision = check_name(name)
    _check_rules(scores)
    files = {task: result for score in scores.values() for task, result in score.results.items() if is_of_mteb(task)}
    left_out = tuple(score.name for score in scores.values() if not set(score.results) & set(files))
    if not files:
        raise ConfigError("There is no task of mteb's among the scores, so there is nothing to submit.")
    with held(out, "submit") as place:
        place.check_free()
        run = run_of(source)
        meta = meta_of(model, run, name=hub_id, revision=revision or fingerprint(model))
        report = _mock_run(model, meta)
        zero_shot = {task: meta.is_zero_shot_on([task]) for task in files}
        with place.filled(last=(MARK,)) as folder:
            cache = ResultCache(folder)
            for result in files.values():
                cache.save_to_cache(TaskResult.model_validate_json(json.dumps(result)), meta)
            module = re.sub(r"\W", "_", hub_id.partition("/")[2].lower())
            (folder / f"{module}.py").write_text(_module(meta, module), encoding="utf-8")
            (folder / "mock_run.md").write_text(report + "\n", encoding="utf-8")
            record = {
                "model": hub_id,
                "mteb": mteb.__version__,
                "left_out": list(left_out),
                "sets": sorted(sets_of(run)),
                "trained_on": None if meta.training_datasets is None else sorted(meta.training_datasets),
                "to_fill_in": [field for field in TO_FILL_IN if getattr(meta, field) is None],
                "tasks": {task: {"zero_shot": zero_shot[task], "notes": _notes(scores, task)} for task in files},
            }
            (folder / MARK).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return Submission(folder=Path(out), meta=meta, tasks=tuple(files), left_out=left_out, zero_shot=zero_shot)


def meta_of(model: SentenceTransformer, run: RunRecord | None, *, name: str, revision: str) -> ModelMeta:
    """Return mteb's metadata of a model, from itself, its base's card and the record of its training."""
    base = run.stages[0].base if run is not None and run.stages else base_of(model)
    licence = getattr(model[0], "base_licence", None) or licence_of(base)
    parameters = sum(one.numel() for one in model.parameters())
    embeddings = model[0].model.get_input_embeddings().weight.numel()
    memory = sum(one.numel() * one.element_size() for one in model.parameters())
    return ModelMeta(
        loader=SentenceTransformerEncoderWrapper,
        name=name,
        revision=revision,
        release_date=run.starts[-1]["at"][:10] if run is not None and run.starts else None,
        languages=None,
        n_parameters=parameters,
        n_embedding_parameters=embeddings,
        memory_usage_mb=round(memory / _MEGABYTE),
        max_tokens=model.max_seq_length,
        embed_dim=model.get_embedding_dimension(),
        license=licence if licence in get_args(Licenses) else None,
        open_weights=True,
        public_training_code=_home(),
        public_training_data=None,
        framework=["Sentence Transformers", "PyTorch", "safetensors"],
        reference=f"https://huggingface.co/{name}",
        similarity_fn_name=model.similarity_fn_name or "cosine",
        use_instructions=takes_instruction(model) or any((model.prompts or {}).values()),
        training_datasets=trained_on(run),
        adapted_from=base if is_hub_id(base) else None,
    )


def trained_on(run: RunRecord | None) -> set[str] | None:
    """Return mteb's tasks whose training data a run read; None without a run, and where a set is not in TRAINED_ON."""
    names = sets_of(run)
    if run is None or not names <= set(TRAINED_ON):
        return None
    return {task for name in names for task in TRAINED_ON[name]}


def sets_of(run: RunRecord | None) -> set[str]:
    """Return the names of the sets that a run read."""
    return set() if run is None else {str(one.get("set", "")) for stage in run.stages for one in stage.data}


def _check_rules(scores: Scores) -> None:
    settings = scores.settings
    if settings.get("seed") != SEED:
        raise ConfigError(f"The scores were made with seed {settings.get('seed')}; mteb's own is {SEED}.")
    if settings.get("cut") is not None:
        raise ConfigError("The scores are of cut texts (--cut); the leaderboard's are of whole ones.")


def _notes(scores: Scores, task: str) -> list[str]:
    return [note for score in scores.values() if task in score.results for note in score.notes]


def _mock_run(model: SentenceTransformer, meta: ModelMeta) -> str:
    """Return mteb's report on its small tasks; ModelError naming those that failed."""
    embedder = CountingEmbedder(ModelEncode(model))
    own = TaskEncoder(
        model, embedder, prompts_for(model, "", own=True), name=str(meta.name), revision=str(meta.revision)
    )
    outcome = mteb.mock_run(own)
    if not outcome.all_passed:
        failed = ", ".join(failures for _, _, failures in outcome.modality_summary() if failures)
        raise ModelError(f"mteb's mock_run fails on {failed}; nothing was written.\n{outcome.to_markdown()}")
    report: str = outcome.to_markdown()
    return report


def _module(meta: ModelMeta, name: str) -> str:
    lines: Sequence[str] = (
        "from mteb.models.model_meta import ModelMeta, ScoringFunction",
        "from mteb.models.sentence_transformer_wrapper import SentenceTransformerEncoderWrapper",
        "",
        f"{name} = {meta.to_python()}",
    )
    return "\n".join(lines) + "\n"


def _home() -> str | None:
    """Return where the code is published, by the package's own metadata."""
    urls: list[Any] = metadata("antiphon").get_all("Project-URL") or []
    return next((str(url).partition(", ")[2] for url in urls if "http" in str(url)), None)
