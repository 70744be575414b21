"""Folders that are filled whole or not at all, beside whatever else a user keeps in them.

Whatever is written on the way lies in the folder itself, so that it may be a mount or a symlink:

    .antiphon.lock     held by the process that writes
    .antiphon-new/     the new files; of a killed run it is removed
    .antiphon-ready/   the same, complete, with a plan, while they are moved into place; of a killed run the moves are
                       made to the end, or taken back where nothing else stands there
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from antiphon.errors import AntiphonError, DataError
from antiphon.files.locks import LOCK, OURS, locked, remove_left
from antiphon.files.whole import clean, reason, write_whole

LISTED = "files"
"""The key of a mark under which it lists the files of its run."""
_NEW, _READY, _PLAN, _CONTENT = f"{OURS}-new", f"{OURS}-ready", "plan.json", "files"
_SCRATCH = "antiphon-scratch-"


def is_free(folder: Path) -> bool:
    """Return whether nothing stands there, or an empty folder; what killed runs left does not count."""
    return not folder.exists() or (folder.is_dir() and all(name.startswith(OURS) for name in os.listdir(folder)))


def check_place(folder: Path, mark: str) -> None:
    """Raise a DataError where something stands that has not the file `mark`, and so is none of ours."""
    if not is_free(folder) and not (folder / mark).exists():
        raise DataError(f"{folder} exists and holds no {mark}; nothing was written. Name another folder.")


@dataclass(frozen=True)
class HeldFolder:
    """A folder that this process alone writes to."""

    path: Path
    """Without symlinks."""
    name: str
    """As the user wrote it."""
    made: bool
    """Whether it was not there before."""
    kind: type[AntiphonError]

    def check_free(self) -> None:
        """Raise the folder's kind of error where something stands in it."""
        if not is_free(self.path):
            raise self.kind(
                f"{self.name} exists and is not empty; nothing was written. Name another folder or remove it."
            )

    @contextmanager
    def filled(self, *, last: Sequence[str], mark: str | None = None) -> Iterator[Path]:
        """Give an empty folder to fill, whose files stand in this one when the block ends.

        Files that the JSON file `mark` of the last run lists make way, and nothing else does; `mark` is written anew
        with its list. `last` are the files without which a reader takes the folder for none: they are moved at the
        end, in that order. Raises the folder's kind of error where something else bears the name of a new file, or
        where the disk is full; then nothing has changed.
        """
        work = self.path / _NEW
        try:
            (work / _CONTENT).mkdir(parents=True)
            yield work / _CONTENT
            plan = self._plan(work / _CONTENT, mark, last)
            (work / _PLAN).write_text(json.dumps(plan), encoding="utf-8")
            _to_disk(work)
            work.replace(self.path / _READY)
            _move_in(self.path)
        except OSError as error:
            raise self.kind(f"{self.name} could not be written ({reason(error)}).") from error
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def _plan(self, new: Path, mark: str | None, last: Sequence[str]) -> dict[str, Any]:
        """Return what is to be moved and removed; the folder's kind of error where a file would be written over."""
        files = sorted(path.relative_to(new).as_posix() for path in new.rglob("*") if not path.is_dir())
        folders = sorted(path.relative_to(new).as_posix() for path in new.rglob("*") if path.is_dir())
        before = [] if mark is None else _listed(self.path / mark)
        if mark is not None:
            content = json.loads((new / mark).read_text(encoding="utf-8"))
            write_whole(new / mark, (json.dumps({**content, LISTED: files}, indent=2) + "\n").encode())
        foreign = [name for name in files if before is not None and name not in before and _stands(self.path / name)]
        if foreign:
            raise self.kind(
                f"{self.name} has {', '.join(foreign[:3])} in it, which no run of ours wrote there, and this one would "
                "write over it; move it away or name another folder. Nothing was written."
            )
        removed = sorted(set(before or ()) - set(files))
        return {
            "files": files, "folders": folders, "removed": removed, "last": list(last), "fresh": is_free(self.path),
        }  # fmt: skip


@contextmanager
def held(folder: str | Path, verb: str, *, kind: type[AntiphonError] = DataError) -> Iterator[HeldFolder]:
    """Hold a folder for the block against other writers; it is made, and gone again where nothing came into it.

    What killed runs left is put in order first. Raises `kind`, saying who holds it, where another process does, and
    where it cannot be written to. Where the file system has no locks a warning says so, and the block goes on.
    """
    target = Path(folder).resolve()
    made = not target.exists()
    if not made and not target.is_dir():
        raise kind(f"{folder} is a file; name a folder to write to. Nothing was written.")
    try:
        with locked(target / LOCK, str(folder), verb, kind):
            try:
                _recover(target)
            except OSError as error:
                raise kind(f"{folder} could not be written ({reason(error)}).") from error
            yield HeldFolder(target, str(folder), made, kind)
    finally:
        if made:
            with suppress(OSError):  # where something came into it
                target.rmdir()


@contextmanager
def held_file(path: Path, verb: str, *, kind: type[AntiphonError] = DataError) -> Iterator[None]:
    """Hold a single file for the block, as `held` does a folder."""
    target = path.resolve()
    made = not target.parent.exists()
    name = hashlib.sha256(target.name.encode()).hexdigest()[:16]
    try:
        with locked(target.parent / f"{OURS}-{name}.lock", str(path), verb, kind):
            clean(target.parent)
            yield
    finally:
        if made:
            with suppress(OSError):
                target.parent.rmdir()


@contextmanager
def scratch() -> Iterator[Path]:
    """Give a folder for what nobody is to keep; those of killed runs are removed."""
    for left in Path(tempfile.gettempdir()).glob(f"{_SCRATCH}*"):
        if not (left / LOCK).exists() or remove_left(left / LOCK, beside=left / _CONTENT):
            with suppress(OSError):
                left.rmdir()
    folder = Path(tempfile.mkdtemp(prefix=_SCRATCH))
    try:
        with locked(folder / LOCK, str(folder), "scratch", DataError):
            (folder / _CONTENT).mkdir()
            try:
                yield folder / _CONTENT
            finally:
                shutil.rmtree(folder / _CONTENT, ignore_errors=True)
    finally:
        with suppress(OSError):
            folder.rmdir()


def _recover(folder: Path) -> None:
    """Bring what a killed run began to its end, or take it back; remove what it left."""
    if (folder / _READY / _PLAN).exists():
        plan = json.loads((folder / _READY / _PLAN).read_text(encoding="utf-8"))
        if plan["fresh"] and _nothing_else(folder, plan):
            _take_back(folder, plan)
        else:
            _move_in(folder)
    clean(folder)
    for left in folder.glob(f"{OURS}-*"):
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left)


def _move_in(folder: Path) -> None:
    """Move the files that are ready into place; whenever that is cut short, it can be done again."""
    ready = folder / _READY
    plan = json.loads((ready / _PLAN).read_text(encoding="utf-8"))
    content = ready / _CONTENT
    waiting = [name for name in plan["last"] if (content / name).exists()]
    for name in reversed(waiting):  # from now on until the end no reader takes the folder for a whole one
        (folder / name).unlink(missing_ok=True)
    _remove(folder, plan["removed"])
    aside = [name for name in plan["files"] if name not in plan["last"] and (content / name).exists()]
    for name in plan["folders"]:
        (folder / name).mkdir(exist_ok=True)
        if (content / name).exists():
            shutil.copymode(content / name, folder / name)
    for name in [*aside, *waiting]:
        _move(content / name, folder / name)
    shutil.rmtree(content, ignore_errors=True)  # before the plan
    shutil.rmtree(ready)


def _nothing_else(folder: Path, plan: dict[str, Any]) -> bool:
    """Return whether nobody has laid anything beside what was moved."""
    known = {*plan["files"], *plan["folders"]}
    found = (path.relative_to(folder) for path in folder.rglob("*"))
    return all(path.parts[0].startswith(OURS) or path.as_posix() in known for path in found)


def _take_back(folder: Path, plan: dict[str, Any]) -> None:
    if (folder / _READY / _CONTENT).exists():
        _remove(folder, [*reversed(plan["last"]), *plan["files"]])
        for name in reversed(plan["folders"]):
            with suppress(OSError):
                (folder / name).rmdir()


def _remove(folder: Path, names: Sequence[str]) -> None:
    """Remove files of ours, and the folders that are empty then."""
    for name in names:
        path = folder / name
        if path.is_dir():
            continue
        with suppress(FileNotFoundError, NotADirectoryError):
            path.unlink()
        for above in PurePosixPath(name).parents[:-1]:
            with suppress(OSError):
                (folder / above).rmdir()


def _move(source: Path, target: Path) -> None:
    """Move a file to where a name leads, through symlinks and to other disks."""
    place = target.resolve()
    try:
        os.replace(source, place)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        write_whole(place, source.read_bytes())
        source.unlink()


def _listed(mark: Path) -> list[str] | None:
    """Return the files that a mark lists, none where there is no mark; None where it is of a release that listed none.

    Names that lead out of the folder are passed over: a mark may have been tampered with.
    """
    try:
        names = json.loads(mark.read_text(encoding="utf-8"))[LISTED]
        paths = [PurePosixPath(str(name)) for name in names]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError):
        return None
    return [path.as_posix() for path in paths if not path.is_absolute() and ".." not in path.parts]


def _stands(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def _to_disk(folder: Path) -> None:
    """Have the files of a folder on the disk, or a power cut could leave empty ones under their final names."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
