"""A million short texts embedded by a small random model, killed twice with SIGKILL and gone on with; then by Ray.

    python benchmarks/million.py --work /tmp/million                                    # Parquet
    python benchmarks/million.py --work /tmp/million --target vectors vectors.lance --ray

Told for each target: seconds, the peak of resident memory of every process, and whether rows and digests are those of
a run that nobody killed. With `--ray` two of Ray's workers embed them once more, and one is killed in the middle.
Every process computes with one thread. A second call goes on with what is there.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORDS = [f"{first}{second}" for first in ("ba", "de", "fi", "ko", "lu", "ma", "ne", "pi", "ro", "su") for second in
         ("lan", "mer", "nik", "pos", "rud", "sat", "tel", "vin", "wor", "zum")]  # fmt: skip


def make_texts(path: Path, number: int) -> None:
    """Write texts of four to six made words; the first three spell the number of the line, so no two are alike."""
    generator = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for row in range(number):
            own = (WORDS[row // 10_000 % 100], WORDS[row // 100 % 100], WORDS[row % 100])
            words = (*own, *generator.choices(WORDS, k=generator.randint(1, 3)))
            file.write(json.dumps({"id": f"t{row}", "text": " ".join(words), "year": row % 50}) + "\n")


def make_model(folder: Path) -> None:
    names = ["[PAD]", "[UNK]", "[BOS]", "[EOS]", *WORDS]
    tokenizer = Tokenizer(models.WordLevel({name: n for n, name in enumerate(names)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "bos_token": "[BOS]", "eos_token": "[EOS]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(names), hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=256, initializer_range=0.2,
        pad_token_id=0, bos_token_id=2, eos_token_id=3,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)


def rows_of(target: Path) -> int:
    try:
        return int(json.loads((target / "_embed.json").read_text())["rows"])
    except (OSError, ValueError):
        return 0


def ended(running: subprocess.Popen[bytes]) -> bool:
    """Return whether a process has ended, and leave it to `os.wait4`, which alone tells its peak of memory."""
    return os.waitid(os.P_PID, running.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def itself(running: subprocess.Popen[bytes]) -> int:
    """Return the process that embeds."""
    return running.pid


def one_worker(running: subprocess.Popen[bytes]) -> int:
    """Return a process of Ray's in which a model lives, of those that this run started."""
    below = {running.pid}
    while not ended(running):
        for folder in sorted(Path("/proc").glob("[0-9]*")):
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                if parent in below:
                    below.add(int(folder.name))
                    if b"MapWorker" in (folder / "cmdline").read_bytes():
                        return int(folder.name)
            except OSError:
                continue
        time.sleep(0.05)
    raise RuntimeError("the run ended before a worker of its was found")


def embed(
    work: Path,
    target: Path,
    *options: str,
    kill_after: int | None = None,
    who: Callable[[subprocess.Popen[bytes]], int] = itself,
) -> tuple[int, float, float]:
    """Run the command; return its status, seconds, and the peak of its resident memory in MiB."""
    command = [
        sys.executable, "-m", "antiphon.cli", "embed", str(work / "model"), str(work / "texts.jsonl"), "--out",
        str(target), "--template", "classical-write", "--pooling", "mean", "--max-tokens", "64", "--batch-size", "128",
        "--shard-size", "8192", "--batch-tokens", "16384", *options,
    ]  # fmt: skip
    began = time.monotonic()
    variables = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=variables)
    while kill_after is not None and not ended(running) and rows_of(target) < kill_after:
        time.sleep(0.05)
    if kill_after is not None and not ended(running):
        time.sleep(random.Random(kill_after).uniform(0, 1))
        os.kill(who(running), signal.SIGKILL)
    _, status, usage = os.wait4(running.pid, 0)
    running.returncode = os.waitstatus_to_exitcode(status)
    return running.returncode, time.monotonic() - began, usage.ru_maxrss / 1024


def compared(whole: Path, killed: Path) -> bool:
    """Return whether the two manifests list the same rows with the same digests."""
    return (whole / "_embed.json").read_text() == (killed / "_embed.json").read_text()


def told(what: str, target: Path, outcome: tuple[int, float, float]) -> bool:
    """Print how a run ended, and return whether it did without an error."""
    status, seconds, peak = outcome
    print(f"{what}: status {status}, {rows_of(target):,} rows, {seconds:,.0f} s, peak {peak:,.0f} MiB", flush=True)
    return status == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=1_000_000)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--target", nargs="+", default=["vectors"])
    parser.add_argument("--ray", action="store_true", help="embed them by Ray's workers too, and kill one")
    options = parser.parse_args()
    work = options.work
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "texts.jsonl").exists():
        make_model(work / "model")
        make_texts(work / "texts.jsonl", options.texts)
    right = True
    for name in options.target:
        whole, killed, by_ray = work / f"whole-{name}", work / f"killed-{name}", work / f"ray-{name}"
        right &= told(f"{name}, nobody killed it", whole, embed(work, whole))
        for share in (0.3, 0.7):
            told(f"{name}, killed", killed, embed(work, killed, kill_after=int(share * options.texts)))
        right &= told(f"{name}, gone on with", killed, embed(work, killed))
        right &= told(f"{name}, --verify", killed, embed(work, killed, "--verify"))
        pairs = {"killed twice": killed}
        if options.ray:
            flags = ("--engine", "ray", "--workers", "2")
            outcome = embed(work, by_ray, *flags, kill_after=int(0.5 * options.texts), who=one_worker)
            right &= told(f"{name}, by Ray, a worker killed", by_ray, outcome)
            pairs["by Ray"] = by_ray
        for what, other in pairs.items():
            same = compared(whole, other)
            print(f"{name}, {what}: rows and digests of the run that nobody killed: {same}", flush=True)
            right &= same
    sys.exit(not right)


if __name__ == "__main__":
    main()
