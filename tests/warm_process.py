"""Processes that begin with everything imported: a start of `antiphon` costs six seconds of CPU, a fork of one nothing.

`python tests/warm_process.py SOCKET` imports what every command needs and forks for each program that it is sent; the
folder that `commands` makes has an `antiphon` and a `python` that send theirs there, with the terminal, the folder and
the environment they were called with, and pass signals on and the exit status back. A `python` imports the package
itself anew. What a variable of the environment decides at import (threads, offline) is decided by the first process.
No fork happens once a thread runs there.
"""

from __future__ import annotations

import array
import gc
import json
import os
import random
import runpy
import select
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

IMPORTED = ("numpy", "pyarrow.parquet", "datasets", "transformers", "sentence_transformers", "peft", "mteb")
OURS = ("antiphon.cli", "antiphon.corpus.embed", "antiphon.demo", "antiphon.exporting", "antiphon.training")
SEEDS = "seeds"
"""A file beside the programs that says whether importing the package left the random numbers as they were."""
CLIENT = """#!{python} -SE
import array, json, os, signal, socket, sys
sent = {{"program": {program!r}, "arguments": sys.argv[1:], "folder": os.getcwd(), "environment": dict(os.environ)}}
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
server.sendmsg([b"!"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))])
server.sendall(json.dumps(sent).encode() + b"\\n")
answers = server.makefile()
child = int(answers.readline())
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, frame: os.kill(child, number))
status = int(answers.readline() or 70)
if status < 0:
    if -status != signal.SIGKILL:
        signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
sys.exit(status)
"""


def commands(folder: Path) -> tuple[Path, subprocess.Popen[bytes]]:
    """Make the folder of programs, and start the process that they run in; returns both."""
    address = str(folder / "socket")
    settings = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    server = subprocess.Popen([sys.executable, __file__, address], env=settings)
    for program in ("antiphon", "python"):
        path = folder / program
        path.write_text(CLIENT.format(python=sys.executable, program=program, address=address), encoding="utf-8")
        path.chmod(0o755)
    while not Path(address).exists():
        if server.poll() is not None:
            raise RuntimeError(f"the process that others are forked from ended with {server.returncode}")
        time.sleep(0.05)
    return folder, server


def serve(address: str) -> None:
    """Import, then fork for each program that is sent, until killed."""
    gc.disable()
    Path(address).with_name(SEEDS).write_text("kept" if seeds_are_kept() else "moved", encoding="utf-8")
    for name in IMPORTED:
        __import__(name)
    sys.executable = str(Path(address).with_name("python"))  # what is started from here begins like this too
    for name in OURS:
        __import__(name)
    gc.enable()
    gc.collect()
    gc.freeze()  # a child that collects garbage neither looks at nor copies what all of them share
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address + ".new")
    listener.listen(64)
    os.rename(address + ".new", address)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the watchers are not waited for
    while True:
        caller, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            watch(caller)
        caller.close()


def seeds_are_kept() -> bool:
    """Import the package before anything else; return whether that seeded nothing."""
    import torch

    torch.manual_seed(3)
    random.seed(3)
    before = torch.get_rng_state(), random.getstate()
    from antiphon.evaluation import evaluate, evaluator  # noqa: F401

    return torch.equal(before[0], torch.get_rng_state()) and before[1] == random.getstate()


def watch(caller: socket.socket) -> None:
    """Run the program in a child, tell the caller its number and its status, and end."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, ancillary, _, _ = caller.recvmsg(1, socket.CMSG_SPACE(3 * array.array("i").itemsize))
    streams = array.array("i", ancillary[0][2])
    sent = json.loads(caller.makefile().readline())
    child = os.fork()
    if child == 0:
        caller.close()
        run(sent, list(streams))
    caller.sendall(f"{child}\n".encode())
    status = status_of(child, caller)
    with suppress(OSError):
        caller.sendall(f"{status}\n".encode())
    os._exit(0)


def status_of(child: int, caller: socket.socket) -> int:
    """Wait for a child; kill it once the caller has gone, who was killed and could not pass that on."""
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if select.select([caller], [], [], 0.01)[0]:  # it sends nothing more, so this is its end
            os.kill(child, signal.SIGKILL)


def run(sent: dict, streams: list[int]) -> None:
    """Become the program that was sent, and end with its status."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(sent["folder"])
    os.environ.clear()
    os.environ.update(sent["environment"])
    status = 1
    if sent["program"] == "python":  # it may have to do without the package, or look at what an import does
        for name in [name for name in sys.modules if name.split(".")[0] == "antiphon"]:
            del sys.modules[name]
    try:
        program(sent["program"], sent["arguments"])
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        if isinstance(ended.code, str):
            sys.stderr.write(f"{ended.code}\n")
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)


def program(name: str, arguments: list[str]) -> None:
    """Run `antiphon ARGUMENTS`, or `python` with `-c CODE`, `-m MODULE` or `-P FILE` and arguments."""
    if name == "antiphon":
        sys.argv = ["antiphon", *arguments]
        from antiphon.cli import main

        main(arguments)
    elif arguments[:1] == ["-c"]:
        sys.argv = ["-c", *arguments[2:]]
        sys.path.insert(0, "")
        exec(compile(arguments[1], "<string>", "exec"), {"__name__": "__main__"})
    elif arguments[:1] == ["-P"]:
        sys.argv = arguments[1:]
        runpy.run_path(arguments[1], run_name="__main__")
    elif arguments[:1] == ["-m"]:
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        raise SystemExit(f"only `python -c CODE`, `-m MODULE` and `-P FILE` are run here, not {arguments}")


def ranks(programs: Path, function: Callable[..., None], *arguments: object, number: int = 2) -> None:
    """Run `function(rank, *arguments)` of a test module in so many processes at once, and wait for them."""
    code = (
        f"import json, sys; from {function.__module__} import {function.__name__} as job; job(*json.loads(sys.argv[1]))"
    )
    given = [json.dumps([rank, *arguments]) for rank in range(number)]
    running = [subprocess.Popen([str(programs / "python"), "-c", code, one]) for one in given]
    try:
        statuses = [one.wait(timeout=240) for one in running]
        assert not any(statuses), statuses
    finally:
        for one in running:
            one.kill()


if __name__ == "__main__":
    serve(sys.argv[1])
