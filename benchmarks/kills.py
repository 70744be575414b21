"""Kill every verb that writes, at random moments and at each file operation, and look what the next run makes of it.

    python benchmarks/kills.py --random 200 --operations 25 --minutes 20

Each trial forks a process that does one verb on small inputs with nano and is killed (SIGKILL and SIGTERM in turns);
then the same command is given again. Wanted: the result is that of a run nobody killed, byte for byte where the verb
promises that; a notes.md of the user's is still there; and nothing of ours is left but the result.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.update(TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1", ANTIPHON_CACHE="/nowhere", OMP_NUM_THREADS="1")

from sentence_transformers import SentenceTransformer

import antiphon
from antiphon.cli.report import write_comparison
from antiphon.corpus.mining import mine
from antiphon.data.pairs import held_target, load, write
from antiphon.errors import AntiphonError, ConfigError
from antiphon.model.library_messages import quiet
from antiphon.model.parity import unlike_texts

TEXTS = [text for text in unlike_texts() if text.strip() and "\t" not in text and "\n" not in text]
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
OPERATIONS = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate", "os.chmod")
SLOWEST = 120.0
"""Seconds after which a child counts as hanging."""


@dataclass(frozen=True)
class Inputs:
    """What the verbs read."""

    model: SentenceTransformer
    portable: SentenceTransformer
    """One that a portable folder can hold."""
    texts: Path
    pairs: Path
    task: Path
    runs: tuple[Path, ...]


@dataclass(frozen=True)
class Verb:
    """A verb on a folder of a trial, and what counts of its result."""

    run: Callable[[Inputs, Path], object]
    result: Callable[[Path], Any]
    mark: str
    """A file in `out` from which on the folder is the verb's own, and a note may be laid beside it."""


def embed(given: Inputs, place: Path) -> None:
    antiphon.embed(given.model, given.texts, place / "out", shard_size=8)


def mined(given: Inputs, place: Path) -> None:
    try:
        with held_target(place / "out" / "mined.jsonl", verb="mine") as target:
            write(mine(given.model, load(given.pairs), cache=place / "cache"), target)
    except ConfigError as error:  # what was killed when all was done is done
        if "exists already" not in str(error):
            raise


def evaluate(given: Inputs, place: Path) -> None:
    antiphon.evaluate(given.model, [given.task], out=place / "out", cache=place / "cache")


def compare(given: Inputs, place: Path) -> None:
    write_comparison(antiphon.compare(given.runs), place / "out")


def export(given: Inputs, place: Path) -> None:
    try:
        antiphon.export(given.portable, to="portable", out=place / "out")
    except AntiphonError as error:  # what was killed when all was done is done
        if "exists and is not empty" not in str(error) or not (place / "out" / "config.json").exists():
            raise


def train(given: Inputs, place: Path) -> None:
    stage = {"steps": 4, "batch_size": 4, "learning_rate": 1e-3, "save_every": 2, "log_every": 1}
    recipe = {
        "name": "killed",
        "out": str(place / "out"),
        "model": {"base": "nano", "max_tokens": 32},
        "data": {"sets": [{"name": "pairs", "source": str(given.pairs)}]},
        "stage": [
            {"name": "one", "loss": "reconstruction", **stage},
            {"name": "two", "loss": "contrastive", "lora": {"rank": 2}, **stage},
        ],
    }
    antiphon.train(recipe, resume=True)


def files(place: Path) -> dict[str, str]:
    """The digests of a folder's files."""
    return {
        path.relative_to(place).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((place / "out").rglob("*"))
        if path.is_file() and path.name != "notes.md"
    }


def scores(place: Path) -> Any:
    content = json.loads((place / "out" / "scores.json").read_text())
    for task in content["tasks"].values():
        del task["cost"]  # holds seconds
    return content, {name: known for name, known in files(place).items() if not name.endswith("scores.json")}


def trained(place: Path) -> Any:
    stages = json.loads((place / "out" / "run.json").read_text())["stages"]
    kept = ("name", "base_fingerprint", "fingerprint", "steps", "data")
    losses = [[entry["loss"] for entry in stage["history"] if "loss" in entry] for stage in stages]
    models = {name: known for name, known in files(place).items() if "/model/" in name}
    return [{name: stage[name] for name in kept} for stage in stages], losses, models


VERBS = {
    "embed": Verb(embed, files, "_embed.json"),
    "train": Verb(train, trained, "run.json"),
    "mine": Verb(mined, files, "mined.jsonl"),
    "evaluate": Verb(evaluate, scores, "scores.json"),
    "export": Verb(export, files, "never"),
    "compare": Verb(compare, files, "comparison.json"),
}
SHARES = {"embed": 4, "train": 3, "mine": 4, "evaluate": 4, "export": 1, "compare": 4}


def child(work: Callable[[], object], log: Path, *, at: int | None = None, count: Path | None = None, root: str) -> int:
    """Fork a process that does the work and return its number; `at` kills it before that file operation."""
    sys.stdout.flush()
    number = os.fork()
    if number:
        return number
    code = 1
    try:
        os.setsid()
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        seen = watch(at, root)
        work()
        if count is not None:
            count.write_text(str(seen[0]))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def watch(at: int | None, root: str) -> list[int]:
    """Count what is done to files below root, and be killed before the operation `at`."""
    seen = [0]

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = arguments
            done = isinstance(path, str) and ((isinstance(flags, int) and flags & WRITES) or mode in ("w", "wb"))
        else:
            path, done = (arguments[0] if arguments else None), event in OPERATIONS
        if done and root in os.path.abspath(os.fspath(path) if isinstance(path, str | os.PathLike) else ""):
            seen[0] += 1
            if at is not None and seen[0] > at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    return seen


def ended(number: int) -> int:
    """Wait for a child and all that it started, and return its status."""
    deadline = time.monotonic() + SLOWEST
    while True:
        found, status = os.waitpid(number, os.WNOHANG)
        if found:
            break
        if time.monotonic() > deadline:
            os.kill(number, signal.SIGKILL)
        time.sleep(0.005)
    while time.monotonic() < deadline:  # a program that an export has started outlives it
        try:
            os.killpg(number, 0)
        except ProcessLookupError:
            break
        time.sleep(0.02)
    return status


@dataclass
class Trials:
    """Trials of one verb, and what they found."""

    name: str
    given: Inputs
    root: Path
    wanted: Any
    seconds: float
    operations: int
    killed: int = 0

    def trial(self, number: int, *, at: int | None, draw: random.Random) -> str | None:
        """Return what is wrong after a kill and a second run, None where nothing is."""
        verb = VERBS[self.name]
        place = self.root / f"{self.name}-{number}"
        place.mkdir()
        log = place / "log.txt"
        running = child(lambda: verb.run(self.given, place), log, at=at, root=str(self.root))
        if at is None:
            time.sleep(draw.uniform(0, self.seconds))
            os.kill(running, (signal.SIGKILL, signal.SIGTERM)[number % 2])
        self.killed += ended(running) != 0
        noted = (place / "out" / verb.mark).exists()
        if noted:
            (place / "out" / "notes.md").write_text("mine")
        if ended(child(lambda: verb.run(self.given, place), log, root=str(self.root))) != 0:
            return f"does not go on: {log.read_text()[-1500:]}"
        left = [str(path) for folder in (place, self.root / "tmp") for path in folder.rglob("*") if is_left(path)]
        if left:
            return f"left {left[:3]}"
        if noted and not (place / "out" / "notes.md").exists():
            return "lost a file of the user's"
        found, wanted = (json.dumps(one, sort_keys=True) for one in (verb.result(place), self.wanted))
        if found != wanted:
            first = next((n for n, pair in enumerate(zip(found, wanted, strict=False)) if len(set(pair)) > 1), 0)
            there, here = (one[max(0, first - 100) : first + 100] for one in (found, wanted))
            return f"another result than that of a run nobody killed: {there} in place of {here}"
        shutil.rmtree(place)
        return None


def is_left(path: Path) -> bool:
    return path.name.startswith((".antiphon", "antiphon-scratch-"))


def prepared(root: Path) -> Inputs:
    model = antiphon.build("nano", max_tokens=32)
    texts, pairs, task = root / "texts.txt", root / "pairs.jsonl", root / "task.tsv"
    texts.write_text("\n".join(TEXTS[:28]) + "\n")
    rows = [{"query": TEXTS[n][:40], "positive": TEXTS[n]} for n in range(24)]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    judged = [f"{TEXTS[n]}\t{TEXTS[-n - 1]}\t{(n * 7) % 11 / 2}" for n in range(12)]
    task.write_text("\n".join(["sentence1\tsentence2\tscore", *judged]) + "\n")
    runs = []
    for label, template in (("one", "echo-rewrite"), ("two", "classical-write")):
        other = antiphon.build("nano", template=template, max_tokens=32)
        antiphon.evaluate(other, [task], out=root / label, label=label, cache=False)
        runs.append(root / label)
    portable = antiphon.build("nano", pooling="last", max_tokens=32)
    return Inputs(model, portable, texts, pairs, task, tuple(runs))


def reference(name: str, given: Inputs, root: Path) -> Trials:
    """Run a verb that nobody kills, twice: what it gives, how long it takes, and what it does to files."""
    place, count = root / f"{name}-whole", root / f"{name}-count"
    place.mkdir()
    log = place / "log.txt"
    began = time.monotonic()
    status = ended(child(lambda: VERBS[name].run(given, place), log, count=count, root=str(root)))
    seconds = time.monotonic() - began
    if status:
        sys.exit(f"{name} failed: {log.read_text()[-2000:]}")
    return Trials(name, given, root, VERBS[name].result(place), seconds, int(count.read_text()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--random", type=int, default=200, help="kills at random moments, over all verbs")
    parser.add_argument("--operations", type=int, default=25, help="file operations a verb, evenly spread; 0 for all")
    parser.add_argument("--minutes", type=float, default=20.0, help="after which no trial is begun")
    parser.add_argument("--verbs", default=",".join(VERBS))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    quiet()
    # not torch.set_num_threads: its pool would be broken in the threads of a forked child that loads weights
    for name in antiphon.__all__:
        getattr(antiphon, name)  # imported here once, not in every child
    deadline = time.monotonic() + 60 * options.minutes
    draw = random.Random(options.seed)
    names = options.verbs.split(",")
    failures: list[str] = []
    done: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        root = Path(folder).resolve()
        (root / "tmp").mkdir()
        tempfile.tempdir = os.environ["TMPDIR"] = str(root / "tmp")
        given = prepared(root)
        trials = {name: reference(name, given, root) for name in names}
        shares = sum(SHARES[name] for name in names)
        plan: list[tuple[str, int | None]] = []
        for name, one in trials.items():
            print(f"{name}: {one.seconds:.1f} s, {one.operations} file operations", flush=True)
            plan += [(name, None)] * round(options.random * SHARES[name] / shares)
            wanted = min(options.operations or one.operations, one.operations)
            plan += [(name, number * one.operations // wanted) for number in range(wanted)]
        draw.shuffle(plan)
        for number, (name, at) in enumerate(plan):
            if time.monotonic() > deadline:
                break
            wrong = trials[name].trial(number, at=at, draw=draw)
            done[f"{name}, {'at a random moment' if at is None else 'at a file operation'}"] += 1
            if wrong is not None:
                failures.append(f"{name} ({'random' if at is None else f'operation {at}'}): {wrong}")
                print(failures[-1], flush=True)
    for kind, count in sorted(done.items()):
        print(f"{kind}: {count}")
    killed = sum(one.killed for one in trials.values())
    print(f"{sum(done.values())} of {len(plan)} trials, {killed} killed before the end, {len(failures)} wrong")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
