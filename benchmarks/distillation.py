"""Echo at one pass: a calibrated echo model's vectors distilled into its single-pass form, on unlabelled text.

    python benchmarks/distillation.py BASE OUT [--texts FILE] [--students classical-write eol] [--steps 200] [--lora 16]
    python benchmarks/distillation.py score OUT [--data ../shared/data]

The teacher is BASE said twice (echo-rewrite, mean) and calibrated; a student is BASE said once (in the frame of
`classical-write`, or in that of `eol`, by their mean), standardised the same way, so that every dimension of both
has one scale and the student begins where it is best without training. sentence-transformers' own MSELoss
brings the student's vectors to the teacher's. OUT/teacher, OUT/STUDENT-before and OUT/STUDENT-after are saved
embedders; `score` puts them into a table over eight of zeroshot.py's sets, with paired intervals.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import torch
from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.losses import MSELoss

import antiphon
from antiphon.data.docstrings import of_standard_library
from antiphon.evaluation.comparison import compare
from antiphon.evaluation.scores import Scores
from antiphon.model.adapters import Lora, attach, merge

TASKS = (
    "sts/stsb_dev.tsv",
    "beir/xquad_en",
    "classification/trec_questions",
    "clustering/stackoverflow.jsonl",
    "sts/sts12.tsv",
    "train/nq.jsonl",
    "classification/tweet_emotion",
    "sts/sts13.tsv",
)
"""The sets of docs/zero-shot.md's table of SmolLM2."""
HELD_OUT = 200
"""Texts on which the distance to the teacher is told before and after."""
BATCH = 16


def read_texts(path: Path | None, wanted: int) -> list[str]:
    """Return distinct texts of 60 characters or more: lines of a file, or docstrings."""
    if path is None:
        found = [one.text for one in of_standard_library()]
    else:
        found = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if len(line.strip()) >= 60]
    distinct = list(dict.fromkeys(text[:600] for text in found))
    return [distinct[n * len(distinct) // wanted] for n in range(min(wanted, len(distinct)))]


def distil(arguments: argparse.Namespace) -> None:
    texts = read_texts(arguments.texts, arguments.steps * BATCH + HELD_OUT)
    held, taught = texts[:HELD_OUT], texts[HELD_OUT:]

    def built(template: str, layers: int | None) -> SentenceTransformer:
        model = antiphon.build(
            arguments.base, template, max_tokens=arguments.max_tokens, layers=layers, dtype="float32", device="cpu"
        )
        return antiphon.calibrate(model, held)

    teacher = built("echo-rewrite", None)
    began = time.process_time()
    wanted = torch.from_numpy(antiphon.Encoder(teacher).encode(texts))
    print(f"teacher: {len(texts)} texts in {time.process_time() - began:.0f} s of CPU", flush=True)
    antiphon.save(teacher, arguments.out / "teacher")
    del teacher
    facts = {}
    for name in arguments.students:
        student = built(name, arguments.layers)
        before = agreement(student, held, wanted[:HELD_OUT])
        antiphon.save(student, arguments.out / f"{name}-before")
        attach(student, Lora(rank=arguments.lora))
        train(student, taught, wanted[HELD_OUT:], arguments)
        student.eval()
        after = agreement(student, held, wanted[:HELD_OUT])
        merge(student)
        antiphon.save(student, arguments.out / f"{name}-after")
        facts[name] = {"texts": len(taught), "before": before, "after": after}
        (arguments.out / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
        print(f"{name}: mean cosine to the teacher, {HELD_OUT} texts not trained on: {before:.4f}, then {after:.4f}")


def score(arguments: argparse.Namespace) -> None:
    from zero_shot import scoring
    from zero_shot.sets import selected

    tasks, loaded = selected(arguments.data, TASKS, arguments.cache), {}
    found: dict[str, Scores] = {}
    for folder in sorted(path for path in arguments.out.iterdir() if (path / "modules.json").exists()):
        encoder = antiphon.Encoder(antiphon.load(folder, device="cpu", dtype="float32"))
        found[folder.name] = scoring.score(
            tasks, lambda texts, prompt, side, encoder=encoder: encoder.encode(list(texts)), folder.name, loaded
        )
        print(f"{folder.name} {100 * found[folder.name].average:.1f}", flush=True)
    for first in (name for name in found if not name.endswith("-after")):
        others = [one for name, one in found.items() if name != first]
        print(compare([found[first], *others]))


def agreement(student: SentenceTransformer, texts: list[str], wanted_ND: torch.Tensor) -> float:
    """Return the mean cosine of a student's vectors with the teacher's."""
    found_ND = student.encode(texts, convert_to_tensor=True, show_progress_bar=False)
    return float(torch.nn.functional.cosine_similarity(found_ND, wanted_ND).mean())


def train(
    student: SentenceTransformer, texts: list[str], wanted_ND: torch.Tensor, arguments: argparse.Namespace
) -> None:
    rows = Dataset.from_dict({"sentence": texts, "label": wanted_ND.tolist()})
    settings = SentenceTransformerTrainingArguments(
        output_dir=str(arguments.out / "trainer"),
        max_steps=arguments.steps,
        per_device_train_batch_size=BATCH,
        learning_rate=arguments.rate,
        warmup_steps=arguments.steps // 20,
        lr_scheduler_type="linear",
        logging_steps=10,
        save_strategy="no",
        report_to=[],
        seed=1,
        use_cpu=True,
        disable_tqdm=True,
    )
    SentenceTransformerTrainer(model=student, args=settings, train_dataset=rows, loss=MSELoss(student)).train()


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    if sys.argv[1:2] == ["score"]:
        parser.add_argument("word", choices=["score"])
        parser.add_argument("out", type=Path)
        parser.add_argument("--data", type=Path, default=Path("../shared/data"))
        parser.add_argument("--cache", type=Path, default=Path(".cache/zeroshot"))
        score(parser.parse_args())
        return
    parser.add_argument("base")
    parser.add_argument("out", type=Path)
    parser.add_argument("--texts", type=Path)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rate", type=float, default=2e-4)
    parser.add_argument("--lora", type=int, default=16)
    parser.add_argument("--layers", type=int)
    parser.add_argument("--students", nargs="+", default=["classical-write"])
    parser.add_argument("--max-tokens", type=int, default=64)
    distil(parser.parse_args())


if __name__ == "__main__":
    main()
