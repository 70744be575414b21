"""One writer at a time: an OS lock on a file that says who holds it.

The lock is the system's (flock), so it ends with its process, however that ends; what is left then is an empty claim.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from antiphon.errors import AntiphonError

if sys.platform != "win32":
    import fcntl

OURS = ".antiphon"
"""What the names of all files begin with that are not there to stay."""
LOCK = f"{OURS}.lock"
_BUSY = (errno.EWOULDBLOCK, errno.EACCES)
_FLAGS = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0)
_TRIES = 20

logger = logging.getLogger(__name__)


@contextmanager
def locked(file: Path, name: str, verb: str, kind: type[AntiphonError]) -> Iterator[None]:
    """Hold a lock file for the block; `name` is what it guards in the user's words, `verb` who holds it.

    Raises `kind` where another process holds it, saying which, and where it cannot be written.
    """
    descriptor = _acquired(file, name, kind)
    try:
        since = datetime.now().astimezone().isoformat(timespec="seconds")
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "verb": verb, "since": since}
        try:
            os.ftruncate(descriptor, 0)
            os.write(descriptor, json.dumps(holder).encode())
        except OSError as error:
            raise kind(f"{name} could not be written ({error.strerror}). Nothing was written.") from error
        yield
    finally:
        try:
            with suppress(OSError):
                file.unlink()
        finally:
            os.close(descriptor)


def _acquired(file: Path, name: str, kind: type[AntiphonError]) -> int:
    """Return the descriptor of a lock file that this process holds."""
    for number in range(_TRIES):
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(file, _FLAGS | os.O_CREAT, 0o666)
        except FileNotFoundError as error:
            if number == _TRIES - 1:
                raise kind(f"{name} could not be written ({error.strerror}). Nothing was written.") from error
            continue  # a run that failed may have taken its folder away at this moment
        except OSError as error:
            raise kind(f"{name} could not be written ({error.strerror}). Nothing was written.") from error
        if lock(descriptor, name) is False:
            os.close(descriptor)
            raise kind(
                f"{name} is being written by {_holder(file)}; wait until it has ended, or write elsewhere. "
                "Nothing was written."
            )
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(file)):
                return descriptor
        os.close(descriptor)  # its holder removed it when it ended
    raise kind(f"{name} is being written by others all the time; write elsewhere. Nothing was written.")


def _holder(file: Path) -> str:
    for _ in range(_TRIES):
        with suppress(OSError, ValueError, KeyError, TypeError):
            found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            return f"antiphon {found['verb']} (process {found['pid']} on {found['host']}, since {found['since']})"
        time.sleep(0.01)  # it has taken the lock and not yet said so
    return "another process"


def lock(descriptor: int, name: str = "", *, wait: bool = False) -> bool | None:
    """Return whether this process now holds an open file; None where the system has no such lock, told with a name."""
    if sys.platform == "win32":
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno in _BUSY:
            return False
        if name:
            logger.warning(
                "%s lies where files cannot be locked (%s): see to it that no other command writes there meanwhile.",
                name, error.strerror,
            )  # fmt: skip
        return None
    return True


def remove_left(file: Path, *, beside: Path | None = None) -> bool:
    """Remove a file, after the folder `beside` it, unless a running process holds it; return whether it is gone."""
    try:
        descriptor = os.open(file, _FLAGS)
    except OSError:
        return False
    try:
        if not lock(descriptor):
            return False
        if beside is not None:
            shutil.rmtree(beside, ignore_errors=True)
        file.unlink(missing_ok=True)
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
