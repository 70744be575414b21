"""Files and folders: whole or not at all, one writer at a time, nothing foreign removed, nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from antiphon.errors import CheckpointError, DataError
from antiphon.files import check_place, clean, digest, held, held_file, is_free, scratch, write_whole
from antiphon.files import folders as folders_of

MARK = "mark.json"


def tree(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): "->" if path.is_symlink() else path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file() or path.is_symlink()
    }


def fill(folder: Path, files: dict[str, str], *, mark: str | None = MARK) -> None:
    with held(folder, "test") as place, place.filled(last=("last.txt", MARK), mark=mark) as new:
        for name, text in {MARK: '{"kept": 1}', **files}.items():
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            (new / name).write_text(text)


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    target = tmp_path / "target"
    write_whole(target, b"first")
    assert target.stat().st_mode & 0o777 == 0o666 & ~current_umask()
    monkeypatch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        write_whole(target, b"second" * 100)
    assert tree(tmp_path) == {"target": "first"}
    assert digest(target) == "a7937b64b8caa58f03721bb6bacf5c78cb235febe0e70b1b84cd99541461a08e"


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_symlink_is_followed(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "near").symlink_to(tmp_path / "far" / "file")
    write_whole(tmp_path / "near", b"text")
    assert (tmp_path / "near").is_symlink()
    assert tree(tmp_path / "far") == {"file": "text"}


def test_a_folder_is_filled_and_only_its_own_files_make_way(tmp_path):
    out = tmp_path / "a" / "out"
    fill(out, {"one.txt": "1", "deep/er/two.txt": "2", "last.txt": "l"})
    assert json.loads((out / MARK).read_text()) == {
        "kept": 1,
        "files": ["deep/er/two.txt", "last.txt", MARK, "one.txt"],
    }
    (out / "notes.md").write_text("mine")
    (out / "plots").mkdir()
    (out / "deep" / "plot.png").write_text("mine too")
    (out / "link").symlink_to("/nowhere")
    fill(out, {"three.txt": "3", "last.txt": "ll"})
    found = tree(out)
    assert found.pop(MARK)
    assert found == {"notes.md": "mine", "deep/plot.png": "mine too", "link": "->", "three.txt": "3", "last.txt": "ll"}
    assert (out / "plots").is_dir()
    assert not (out / "deep" / "er").exists()


def test_a_file_that_is_not_ours_is_not_written_over(tmp_path):
    fill(tmp_path, {"one.txt": "1"})
    (tmp_path / "two.txt").write_text("mine")
    before = tree(tmp_path)
    with pytest.raises(DataError, match=r"has two\.txt in it, which no run of ours wrote"):
        fill(tmp_path, {"two.txt": "2"})
    assert tree(tmp_path) == before


def test_a_mark_that_was_tampered_with_leads_nowhere(tmp_path):
    (tmp_path / "precious").write_text("mine")
    out = tmp_path / "out"
    fill(out, {})
    for name in ("../precious", str(tmp_path / "precious"), "x/../../precious"):
        (out / MARK).write_text(json.dumps({"files": [name, MARK]}))
        fill(out, {"one.txt": "1"})
        assert (tmp_path / "precious").read_text() == "mine"
        (out / "one.txt").unlink()


def test_a_folder_of_a_release_without_a_list_loses_nothing(tmp_path):
    (tmp_path / MARK).write_text("{}")
    (tmp_path / "one.txt").write_text("old")
    (tmp_path / "notes.md").write_text("mine")
    fill(tmp_path, {"one.txt": "new"})
    assert tree(tmp_path)["one.txt"] == "new"
    assert tree(tmp_path)["notes.md"] == "mine"


def test_symlinked_folders_are_followed(tmp_path):
    (tmp_path / "far" / "deep").mkdir(parents=True)
    (tmp_path / "out").symlink_to(tmp_path / "far")
    fill(tmp_path / "out", {"one.txt": "1"})
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "far" / "deep").rmdir()
    (tmp_path / "far" / "deep").symlink_to(tmp_path / "elsewhere")
    fill(tmp_path / "out", {"deep/two.txt": "2"})
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "far" / "deep").is_symlink()
    assert tree(tmp_path / "elsewhere") == {"two.txt": "2"}
    assert not (tmp_path / "far" / "one.txt").exists()


def test_what_fails_leaves_nothing(tmp_path):
    def fail(folder: Path) -> None:
        with held(folder, "test") as place, place.filled(last=(MARK,)) as new:
            (new / "half.txt").write_text("half")
            raise ValueError("in the middle")

    (tmp_path / "old").mkdir()
    for name in ("new", "old"):
        with pytest.raises(ValueError, match="in the middle"):
            fail(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    assert not list((tmp_path / "old").iterdir())


def test_places_that_are_none(tmp_path):
    (tmp_path / "file").write_text("mine")
    with (
        pytest.raises(CheckpointError, match="is a file; name a folder"),
        held(tmp_path / "file", "test", kind=CheckpointError),
    ):
        pass
    with pytest.raises(DataError, match="could not be written"), held(tmp_path / "file" / "out", "test"):
        pass
    with pytest.raises(DataError, match=r"could not be written \(No such file"), held("/proc/out", "test"):
        pass
    with held(tmp_path, "test") as place, pytest.raises(DataError, match="exists and is not empty"):
        place.check_free()
    with pytest.raises(DataError, match=r"exists and holds no mark\.json"):
        check_place(tmp_path, MARK)
    assert tree(tmp_path) == {"file": "mine"}


def test_the_second_writer_is_told_who_the_first_is(tmp_path):
    with held(tmp_path / "out", "embed"):
        told = rf"out is being written by antiphon embed \(process {os.getpid()} on .*, since 20.*\); wait"
        with pytest.raises(DataError, match=told), held(tmp_path / "out", "export"):
            pass
        with held(tmp_path / "other", "export"), held_file(tmp_path / "out" / "file", "mine"):
            pass
    with held_file(tmp_path / "pairs.jsonl", "mine"):
        with pytest.raises(DataError, match="written by antiphon mine"), held_file(tmp_path / "pairs.jsonl", "mine"):
            pass
        with held_file(tmp_path / "others.jsonl", "mine"):
            pass
    with held(tmp_path / "out", "export"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_lock_ends_with_its_process(tmp_path):
    code = (
        "import os, signal, sys; from antiphon.files import held\n"
        "with held(sys.argv[1], 'embed') as place, place.filled(last=()) as new:\n"
        "    (new / 'half').write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "out")], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [".antiphon-new", ".antiphon.lock"]
    assert is_free(tmp_path / "out")
    with held(tmp_path / "out", "export"):
        assert [path.name for path in (tmp_path / "out").iterdir()] == [".antiphon.lock"]


def test_where_files_cannot_be_locked_a_warning_says_so(tmp_path, monkeypatch, caplog):
    import fcntl

    def no_lock(descriptor: int, how: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_lock)
    fill(tmp_path / "out", {"one.txt": "1"})
    assert "out lies where files cannot be locked (No locks available)" in caplog.text
    assert (tmp_path / "out" / "one.txt").exists()


def test_half_written_files_are_cleaned_unless_somebody_writes_them(tmp_path):
    import fcntl

    dead, alive = (tmp_path / f".antiphon-{name}.partial" for name in ("dead", "alive"))
    dead.write_text("half")
    with alive.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        clean(tmp_path)
        assert not dead.exists()
        assert alive.exists()
    clean(tmp_path)
    assert not alive.exists()


def test_scratch_of_killed_runs_is_removed_and_of_running_ones_stays(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    left = tmp_path / "antiphon-scratch-left"
    (left / "files").mkdir(parents=True)
    (left / "files" / "big").write_text("x")
    (left / ".antiphon.lock").write_text("")
    (tmp_path / "antiphon-scratch-empty").mkdir()
    (tmp_path / "antiphon-mine").mkdir()
    with scratch() as one:
        (one / "own").write_text("x")
        with scratch() as two:
            assert one != two
        assert (one / "own").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["antiphon-mine"]


OPERATIONS = ("mkdir", "replace", "rename", "unlink", "rmdir", "open", "ftruncate", "write", "fsync", "close")


def killed_at(number: int, work: Callable[[], None]) -> bool:
    """Do the work in a process that is killed before its file operation of this number; return whether it was."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer Pythons warn of a fork beside threads
        child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        assert status in (0, signal.SIGKILL)
        return status != 0
    count = 0

    def counted(original: Callable[..., object]) -> Callable[..., object]:
        def operation(*arguments: object, **options: object) -> object:
            nonlocal count
            count += 1
            if count > number:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments, **options)

        return operation

    for name in OPERATIONS:
        setattr(os, name, counted(getattr(os, name)))
    try:
        work()
        os._exit(0)
    finally:
        os._exit(1)


@pytest.mark.parametrize(
    "before", [pytest.param(None, marks=pytest.mark.slow), {"one.txt": "1", "gone.txt": "g", "last.txt": "l"}]
)
def test_killed_at_each_operation_the_folder_is_the_old_or_the_new_one(before, tmp_path):
    new = {"one.txt": "11", "deep/two.txt": "2", "last.txt": "ll"}
    fill(tmp_path / "wanted", new)
    wanted = tree(tmp_path / "wanted")
    for number in range(200):
        out = tmp_path / f"out-{number}"
        out.mkdir()
        if before is not None:
            fill(out, before)
            (out / "notes.md").write_text("mine")
        old = tree(out)
        killed = killed_at(number, lambda out=out: fill(out, new))
        found = {name: text for name, text in tree(out).items() if not name.startswith(".antiphon")}
        notes = {} if before is None else {"notes.md": "mine"}
        if MARK in found:  # a reader takes it for whole: so it is
            assert found in (old, {**wanted, **notes})
        if before is None and MARK in found:
            (out / "later.md").write_text("mine")
            notes = {"later.md": "mine"}
        with held(out, "next"):
            pass
        assert tree(out) in ([old, {**wanted, **notes}])
        fill(out, new)
        assert tree(out) == {**wanted, **notes}
        if not killed:
            break
    assert 15 < number < 199


def test_moves_go_across_disks(tmp_path, monkeypatch):
    replace = os.replace
    far: list[Path] = []

    def across(source: Path, target: Path) -> None:
        if Path(source).name == "one.txt":
            far.append(Path(target))
            raise OSError(18, "Invalid cross-device link")
        replace(source, target)

    monkeypatch.setattr(os, "replace", across)
    fill(tmp_path, {"one.txt": "1"})
    assert far == [tmp_path / "one.txt"]
    assert (tmp_path / "one.txt").read_text() == "1"


def test_an_error_of_the_disk_is_a_sentence_and_nothing_is_left(tmp_path, monkeypatch):
    fill(tmp_path / "out", {"one.txt": "1"})
    before = tree(tmp_path / "out")
    with ExitStack() as stack:
        patched = stack.enter_context(pytest.MonkeyPatch.context())

        def full(folder: Path) -> None:
            raise OSError(28, "No space left on device")

        patched.setattr(folders_of, "_to_disk", full)
        with pytest.raises(DataError, match=r"out could not be written \(No space left on device\)"):
            fill(tmp_path / "out", {"one.txt": "2"})
    assert tree(tmp_path / "out") == before
