"""Us against the engines that embed with the same weights on a CPU: CPU seconds, in turns, ratios with their spread.

    python benchmarks/peers.py WORK [--model .cache/real/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf] [--cores 1 2]
        [--pin 1] [--rounds 3] [--dtype bfloat16] [--only NAME ...] [--workloads NAME ...]

One command sets up and runs. Each peer lives in an environment of its own under WORK, and is started as a process that
is pinned to one core, or to two, and that embeds the same texts whenever its turn comes; all are there at once, which
takes a gigabyte and more for each (`--only` for fewer). The CPU seconds of all its processes are counted from outside,
those from the start to the vectors of the first hundred texts too. vLLM and llama.cpp are sent token ids: tokenizers
are not what is compared. Vectors are compared with sentence-transformers' in float32, by the error against spread. A
peer that cannot be installed or started is listed with the reason.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE / "engines")]

FIRST = 100
"""Texts that a peer embeds before it counts as started."""
BATCH_SIZES = (4, 8, 16, 32, 64)
WORKLOADS = {
    "queries": ("classical", True),
    "passages": ("classical", False),
    "echo queries": ("echo", True),
    "echo passages": ("echo", False),
}
"""The template, and whether texts are short and instructed."""
OURS = "antiphon"
TORCH = f"torch=={version('torch')}"
"""For environments of others: the project's own release and build, not one for a GPU."""


LLAMA_SERVER = """
import sys, time
import xllamacpp
file, port, longest, threads = sys.argv[1:]
settings = xllamacpp.CommonParams()
settings.model.path, settings.port, settings.embedding = file, int(port), True
settings.n_ctx = settings.n_batch = settings.n_ubatch = int(longest)
settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = int(threads)
server = xllamacpp.Server(settings)
while True:
    time.sleep(60)
"""
"""llama-server --embeddings with its own attention and cache, as a program for its environment."""


@dataclass(frozen=True)
class Job:
    """What every peer is given."""

    folder: Path
    """The saved embedder, which sentence-transformers with antiphon's modules reads."""
    portable: Path
    """The same for stock sentence-transformers and the servers; under echo that of documents, which serves ids."""
    stock: Path
    """What sentence-transformers loads: `portable`, and under echo `folder`: an instruction needs our module there."""
    dtype: str
    threads: int
    texts: list[str]
    prompt: str
    ids: list[list[int]]
    longest: int = 0
    """Tokens of the longest text of all jobs that an engine is started for."""

    def written(self) -> dict[str, Any]:
        return {name: str(one) if isinstance(one, Path) else one for name, one in self.__dict__.items()}


@dataclass
class Peer:
    """An engine: how its process is started, and how that embeds."""

    name: str
    packages: tuple[str, ...] = ()
    """What is installed into an environment of its own; none for ours."""
    distribution: str = "sentence-transformers"
    command: Callable[[Path, Job, int], list[str]] | None = None
    """Of a server; None for a worker of this file."""
    sends: str = "ids"
    variables: dict[str, str] = field(default_factory=dict)


def vllm(python: Path, job: Job, port: int) -> list[str]:
    longest = job.longest + 1
    flags = f"--runner pooling --dtype {job.dtype} --max-model-len {longest} --port {port}"
    return [str(python.parent / "vllm"), "serve", str(job.portable), *flags.split()]


def llama_cpp(python: Path, job: Job, port: int) -> list[str]:
    weights = next((job.folder.parent / "gguf").glob("*.gguf"), None)
    if weights is None:
        raise FileNotFoundError("the model could not be written as GGUF")
    longest = max(512, job.longest + 8)
    return [str(python), "-c", LLAMA_SERVER, str(weights), str(port), str(longest), str(job.threads)]


def infinity(python: Path, job: Job, port: int) -> list[str]:
    from infinity import FLAGS

    flags = f"{FLAGS} --dtype {job.dtype} --port {port}"
    return [str(python.parent / "infinity_emb"), "v2", "--model-id", str(job.portable), *flags.split()]


def peers() -> list[Peer]:
    """Return the engines; the pins are those of the scripts in engines/."""
    import infinity as infinity_script
    import llama_cpp as llama_script
    import vllm_cpu as vllm_script

    return [
        Peer("sentence-transformers at 32"),
        Peer("sentence-transformers at its best"),
        Peer("sentence-transformers compiled"),
        Peer("sentence-transformers onnx", ("sentence-transformers[onnx]", TORCH)),
        Peer("sentence-transformers openvino", ("sentence-transformers[openvino]", TORCH)),
        Peer("vllm", tuple(vllm_script.PINS), "vllm-cpu", vllm, variables=vllm_script.VARIABLES),
        Peer("llama.cpp", tuple(llama_script.PINS), "xllamacpp", llama_cpp),
        Peer("infinity", tuple(infinity_script.PINS), "infinity-emb", infinity, "strings", infinity_script.VARIABLES),
        Peer(f"{OURS} plain"),
        Peer(f"{OURS} compiled"),
    ]


# --- the process of a peer that is no server: it reads a line, embeds, answers with a line


def worker(name: str, file: Path) -> None:
    """Load what `name` says and embed the first texts, then those of each job that a line names; keep their vectors."""
    job = json.loads(file.read_text())
    import torch

    torch.set_num_threads(job["threads"])
    encode = loaded(name, job)
    encode(job["texts"][:FIRST], job["prompt"])
    print("ready", flush=True)
    for line in sys.stdin:
        given, kept = json.loads(line)
        job = json.loads(Path(given).read_text())
        np.save(kept, np.asarray(encode(job["texts"], job["prompt"]), dtype=np.float32))
        print("done", flush=True)


def loaded(name: str, job: dict[str, Any]) -> Callable[[Sequence[str], str], Any]:
    if name.startswith(OURS):
        import antiphon

        model = antiphon.load(job["folder"], device="cpu", dtype=job["dtype"])
        encoder = antiphon.Encoder(model, compile="compiled" in name).require_fast()
        return lambda texts, prompt: encoder.encode(list(texts), prompt=prompt)
    import torch
    from sentence_transformers import SentenceTransformer

    backend = next((one for one in ("onnx", "openvino") if one in name), "torch")
    kwargs = {"dtype": job["dtype"]} if backend == "torch" else {}
    if job["stock"] == job["folder"]:  # sentence-transformers asks for trust in modules that are not its own
        import antiphon

        model = antiphon.load(job["folder"], device="cpu", dtype=job["dtype"])
    else:
        model = SentenceTransformer(job["stock"], device="cpu", backend=backend, model_kwargs=kwargs)
    if "compiled" in name:
        model[0].model = torch.compile(model[0].model, dynamic=True)

    def encode(texts: Sequence[str], prompt: str, size: int = 32) -> Any:
        return model.encode(list(texts), prompt=prompt, batch_size=size, show_progress_bar=False)

    if "best" not in name:
        return encode
    sample = job["texts"][:: max(4, len(job["texts"]) // 128)]
    taken = {}
    for size in BATCH_SIZES:
        began = os.times()
        encode(sample, job["prompt"], size)
        taken[size] = os.times().user - began.user
    best = min(taken, key=lambda size: taken[size])
    return lambda texts, prompt: encode(texts, prompt, best)


# --- the one that measures


def cpu_seconds(process: int) -> float:
    """Return the CPU seconds of a process and of all that it started, those that ended among them."""
    total, waiting = 0, [process]
    while waiting:
        one = waiting.pop()
        try:
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            total += sum(map(int, fields[11:15]))
            for thread in Path(f"/proc/{one}/task").iterdir():
                waiting += map(int, (thread / "children").read_text().split())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total / os.sysconf("SC_CLK_TCK")


Once = Callable[[Job, Path], float]
"""Embeds a job's texts, keeps the vectors in a file, returns the CPU seconds that it took."""


@contextmanager
def running(peer: Peer, python: Path, job: Job, work: Path, cores: set[int]) -> Iterator[tuple[Once, float]]:
    """Start a peer on some cores; give what embeds, and the CPU seconds from its start to the first texts' vectors."""
    variables = {**os.environ, "OMP_NUM_THREADS": str(job.threads), "HF_HUB_OFFLINE": "1", **peer.variables}
    port, server = free_port(), peer.command is not None
    file, log = work / f"{peer.name.replace(' ', '-')}.job.json", work / f"{peer.name.replace(' ', '-')}.log"
    file.write_text(json.dumps(job.written()))
    worker_command = [str(python), __file__, "--worker", peer.name, str(file)]
    with log.open("w") as written:
        process = subprocess.Popen(
            peer.command(python, job, port) if server else worker_command,
            env=variables,
            stdin=subprocess.PIPE,
            stdout=written if server else subprocess.PIPE,
            stderr=written,
            text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )

    def answered() -> None:
        for line in process.stdout:
            if line.strip() in ("ready", "done"):
                return
        raise RuntimeError(f"it ended: {log.read_text(errors='replace').strip()[-300:]}")

    def once(job: Job, kept: Path) -> float:
        began = cpu_seconds(process.pid)
        if server:
            np.save(kept, over_http(job, peer.sends, port))
        else:
            file.write_text(json.dumps(job.written()))
            process.stdin.write(json.dumps([str(file), str(kept)]) + "\n")
            process.stdin.flush()
            answered()
        return cpu_seconds(process.pid) - began

    try:
        if server:
            from harness import wait

            wait(process, f"http://127.0.0.1:{port}/health", log)
            over_http(job, peer.sends, port, most=FIRST)
        else:
            answered()
        yield once, cpu_seconds(process.pid)
    finally:
        process.terminate()
        process.wait(60)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def over_http(job: Job, sends: str, port: int, *, most: int | None = None) -> np.ndarray:
    """Return the vectors that a server gives of all texts, or of the first `most`, in requests of 256."""
    inputs: list[Any] = job.ids if sends == "ids" else [job.prompt + text for text in job.texts]
    inputs = inputs[:most]
    rows: list[Any] = []
    for start in range(0, len(inputs), 256):
        body = json.dumps({"model": str(job.portable), "input": inputs[start : start + 256]}).encode()
        path = "/embeddings" if sends == "strings" else "/v1/embeddings"
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=3600) as answer:
            found = json.load(answer)["data"]
        rows += [one["embedding"] for one in sorted(found, key=lambda one: one["index"])]
    return np.asarray(rows, dtype=np.float32)


def prepared(
    options: argparse.Namespace, template: str, *, instructed: bool, threads: int
) -> list[tuple[Job, np.ndarray]]:
    """Write the folders of a template, once, and return what is to be embedded in each round, and for the start.

    Each has texts of its own, the same words begun elsewhere, since an engine may keep what it has seen; beside them
    stand some of their vectors by sentence-transformers in float32.
    """
    import encoder

    import antiphon

    place = options.work / template
    folder, portable, gguf = (place / name for name in ("saved", "portable", "gguf"))
    if not (folder / "modules.json").exists():  # a run that was ended may have left less
        antiphon.save(antiphon.build(options.model, template, pooling="last", dtype="float32", device="cpu"), folder)
    if not list(portable.rglob("modules.json")):
        antiphon.export(str(folder), to="portable", out=portable)
    if not list(gguf.glob("*.gguf")):
        try:
            antiphon.export(str(folder), to="gguf", out=gguf)
        except Exception as why:  # llama.cpp alone needs it, and is listed with the reason
            print(f"no GGUF file of {template}: {why}")
    sides = (portable / "document").is_dir()
    stock, portable = (folder, portable / "document") if sides else (portable, portable)
    model = antiphon.load(folder, device="cpu", dtype="float32")
    median, spread, most = (5, 0.35, 16) if instructed else (70, 0.5, 250)
    number = options.queries if instructed else options.passages
    words = [text.split() for text in encoder.texts(number, median, spread, most)]
    prompt = encoder.INSTRUCTION if instructed else ""
    found = []
    for turn in range(options.rounds + 1):
        texts = [" ".join([f"{turn}:", *one[turn % len(one) :], *one[: turn % len(one)]]) for one in words]
        ids = [model.preprocess([text], prompt=prompt)["input_ids"][0].tolist() for text in texts]
        truth = np.asarray(model.encode(sample_of(texts), prompt=prompt, show_progress_bar=False))
        found.append((Job(folder, portable, stock, options.dtype, threads, texts, prompt, ids), truth))
    return found


def sample_of(rows: Any) -> Any:
    """Return about 48 of the texts, or of their vectors, that are compared."""
    return rows[:: max(1, len(rows) // 48)]


def python_of(peer: Peer, work: Path) -> Path:
    """Return the interpreter that runs a peer, its environment made where it is not there."""
    if not peer.packages:
        return Path(sys.executable)
    import vllm_cpu
    from harness import environment

    finish = vllm_cpu.finish if peer.name == "vllm" else None
    return environment(work, peer.name.replace(" ", "-"), peer.packages, finish=finish) / "bin" / "python"


def measured(options: argparse.Namespace, template: str, cores: int) -> None:
    """Start all peers on a template's folder, let them embed each workload in turns, print a table for each."""
    from antiphon.model.parity import compare

    workloads = [name for name in options.workloads if WORKLOADS[name][0] == template]
    jobs = {name: prepared(options, template, instructed=WORKLOADS[name][1], threads=cores) for name in workloads}
    longest = max(len(ids) for turns in jobs.values() for job, _ in turns for ids in job.ids)
    first = replace(jobs[workloads[0]][-1][0], longest=longest)
    chosen = [peer for peer in peers() if not options.only or any(word in peer.name for word in options.only)]
    said: dict[str, str] = {}
    with ExitStack() as stack:
        started: dict[str, tuple[Once, float]] = {}
        for peer in chosen:
            try:
                python = python_of(peer, options.work)
                started[peer.name] = stack.enter_context(
                    running(peer, python, first, options.work, pinned(options, cores))
                )
            except Exception as why:  # a peer that does not start is a row of the table
                said[peer.name] = f"did not start: {' '.join(str(why).split())[-300:]}"
        for name, turns in jobs.items():
            taken: dict[str, list[float]] = {peer: [] for peer in started}
            errors = dict(said)
            for turn, (job, truth) in enumerate(turns[:-1]):
                for peer in list(started)[:: -1 if turn % 2 else 1]:
                    kept = options.work / "vectors.npy"
                    try:
                        taken[peer].append(started[peer][0](job, kept))
                        errors[peer] = f"{compare(truth, sample_of(np.load(kept))).error_against_spread:.1e}"
                    except Exception as why:  # nor does one that fails end the others' turns
                        errors[peer] = f"failed: {' '.join(str(why).split())[-300:]}"
            print(f"\n## {name}, {cores} core{'s' * (cores > 1)}, {options.dtype}, {len(turns[0][0].texts)} texts\n")
            table(chosen, {peer: seconds for peer, (_, seconds) in started.items()}, taken, errors, options.work)


def pinned(options: argparse.Namespace, cores: int) -> set[int]:
    """Return the cores that a peer may use: the first ones of this process, or those that are said."""
    return set(options.pin[:cores] if options.pin else sorted(os.sched_getaffinity(0))[:cores])


def table(
    chosen: Sequence[Peer],
    starts: dict[str, float],
    taken: dict[str, list[float]],
    errors: dict[str, str],
    work: Path,
) -> None:
    """Print a row for each peer, those that did not run with the reason."""
    print("| engine | version | start and first texts, CPU s | all texts, CPU s | against the first row | error |")
    print("|---|---|--:|--:|---|---|")
    against = taken.get(chosen[0].name, [])
    for peer in chosen:
        own = taken.get(peer.name)
        cells = [peer.name, release(peer, work), "-", "-", "-", errors.get(peer.name, "-")]
        if own:
            ratios = [a / b for a, b in zip(against, own, strict=False)] or [float("nan")]
            spread = f"{statistics.median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f}, {len(ratios)} rounds)"
            cells[2:5] = [f"{starts[peer.name]:.1f}", f"{statistics.median(own):.1f}", spread]
        print(f"| {' | '.join(cells)} |", flush=True)


def release(peer: Peer, work: Path) -> str:
    if peer.packages:
        found = sorted(
            (work / "environments" / peer.name.replace(" ", "-")).glob("lib/python*/site-packages/*.dist-info")
        )
        start = peer.distribution.replace("-", "_") + "-"
        return next(
            (one.name.removeprefix(start)[: -len(".dist-info")] for one in found if one.name.startswith(start)), "-"
        )
    try:
        return version(OURS if peer.name.startswith(OURS) else peer.distribution)
    except PackageNotFoundError:
        return "-"


def main() -> None:
    if sys.argv[1:2] == ["--worker"]:
        worker(sys.argv[2], Path(sys.argv[3]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--model", default=".cache/real/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--cores", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--pin", type=int, nargs="+", help="the numbers of the cores, the first ones without it")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--queries", type=int, default=2000)
    parser.add_argument("--passages", type=int, default=500)
    parser.add_argument("--only", nargs="+", help="words of the peers' names")
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    options = parser.parse_args()
    options.work = options.work.resolve()
    options.work.mkdir(parents=True, exist_ok=True)
    for cores in options.cores:
        for template in dict.fromkeys(WORKLOADS[name][0] for name in options.workloads):
            measured(options, template, cores)


if __name__ == "__main__":
    main()
