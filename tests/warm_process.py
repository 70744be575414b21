"""Processes that begin with everything imported: a start of `antiphon` costs six seconds of CPU, a fork of one nothing.

`python tests/warm_process.py SOCKET` imports what every command needs and forks for each program that it is sent; the
folder that `commands` makes has an `antiphon` and a `python` that send theirs there, with the terminal, the folder and
the environment they were called with, and pass signals on and the exit status back. What a variable of the environment
decides at import (threads, offline) is decided by the first process. No fork happens once a thread runs there.
"""

from __future__ import annotations

import array
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path

IMPORTED = ("torch", "numpy", "pyarrow.parquet", "datasets", "transformers", "sentence_transformers", "peft", "mteb")
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
    for name in IMPORTED:
        __import__(name)
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
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    caller.sendall(f"{status}\n".encode())
    os._exit(0)


def run(sent: dict, streams: list[int]) -> None:
    """Become the program that was sent, and end with its status."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(sent["folder"])
    os.environ.clear()
    os.environ.update(sent["environment"])
    status = 1
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
    """Run `antiphon ARGUMENTS`, `python -c CODE ARGUMENTS` or `python -P FILE ARGUMENTS`."""
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
    else:
        raise SystemExit(f"only `python -c CODE` and `python -P FILE` are run here, not {arguments}")


if __name__ == "__main__":
    serve(sys.argv[1])
