"""A million short texts embedded by a small random model, killed twice with SIGKILL and gone on with.

    python benchmarks/million.py --texts 1000000 --work /tmp/million --target vectors [vectors.lance]

Told for each target: texts a second, the peak of resident memory of every process, and whether rows and digests are
those of a run that nobody killed. A second call goes on with what is there.
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
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORDS = [f"{first}{second}" for first in ("ba", "de", "fi", "ko", "lu", "ma", "ne", "pi", "ro", "su") for second in
         ("lan", "mer", "nik", "pos", "rud", "sat", "tel", "vin", "wor", "zum")]  # fmt: skip


def make_texts(path: Path, number: int) -> None:
    """Write texts of four to eight made words; the first three spell the number of the line, so no two are alike."""
    generator = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for row in range(number):
            own = (WORDS[row // 10_000 % 100], WORDS[row // 100 % 100], WORDS[row % 100])
            words = (*own, *generator.choices(WORDS, k=generator.randint(1, 5)))
            file.write(json.dumps({"id": f"t{row}", "text": " ".join(words), "year": row % 50}) + "\n")


def make_model(folder: Path) -> None:
    names = ["[PAD]", "[UNK]", "[BOS]", "[EOS]", *WORDS]
    tokenizer = Tokenizer(models.WordLevel({name: n for n, name in enumerate(names)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "bos_token": "[BOS]", "eos_token": "[EOS]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(names), hidden_size=64, intermediate_size=128, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=256, initializer_range=0.2,
        pad_token_id=0, bos_token_id=2, eos_token_id=3,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)


def rows_of(target: Path) -> int:
    try:
        return int(json.loads((target / "_embed.json").read_text())["rows"])
    except (OSError, ValueError):
        return 0


def embed(work: Path, target: Path, *options: str, kill_after: int | None = None) -> tuple[int, float, float]:
    """Run the command; return its status, seconds, and the peak of its resident memory in MiB."""
    command = [
        sys.executable, "-m", "antiphon.cli", "embed", str(work / "model"), str(work / "texts.jsonl"), "--out",
        str(target), "--template", "classical-write", "--pooling", "mean", "--max-tokens", "64", "--batch-size", "128",
        "--shard-size", "8192", "--batch-tokens", "16384", *options,
    ]  # fmt: skip
    began = time.monotonic()
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    while kill_after is not None and running.poll() is None and rows_of(target) < kill_after:
        time.sleep(0.05)
    if kill_after is not None:
        time.sleep(random.Random(kill_after).uniform(0, 1))
        running.send_signal(signal.SIGKILL)
    _, status, usage = os.wait4(running.pid, 0)
    running.returncode = os.waitstatus_to_exitcode(status)
    return running.returncode, time.monotonic() - began, usage.ru_maxrss / 1024


def compared(whole: Path, killed: Path) -> bool:
    """Return whether the two manifests list the same rows with the same digests."""
    return (whole / "_embed.json").read_text() == (killed / "_embed.json").read_text()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=1_000_000)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--target", nargs="+", default=["vectors", "vectors.lance"])
    options = parser.parse_args()
    work = options.work
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "texts.jsonl").exists():
        make_model(work / "model")
        make_texts(work / "texts.jsonl", options.texts)
    right = True
    for name in options.target:
        whole, killed = work / f"whole-{name}", work / f"killed-{name}"
        status, seconds, peak = embed(work, whole)
        rate = options.texts / seconds
        print(
            f"{name}: {rows_of(whole):,} rows, status {status}, {rate:,.0f} texts/s, peak {peak:,.0f} MiB", flush=True
        )
        for share in (0.3, 0.7):
            status, _, peak = embed(work, killed, kill_after=int(share * options.texts))
            print(f"{name}: killed ({status}) at {rows_of(killed):,} rows, peak {peak:,.0f} MiB", flush=True)
        status, _, peak = embed(work, killed)
        same = compared(whole, killed)
        print(
            f"{name}: gone on to {rows_of(killed):,} rows, status {status}, peak {peak:,.0f} MiB, same: {same}",
            flush=True,
        )
        status, seconds, peak = embed(work, killed, "--verify")
        print(f"{name}: --verify {status} in {seconds:.0f} s, peak {peak:,.0f} MiB", flush=True)
        right = right and same and status == 0
    sys.exit(not right)


if __name__ == "__main__":
    main()
