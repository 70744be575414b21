"""Lines of text from files and standard input: packed or plain, UTF-8, or UTF-16 and UTF-32 with a byte-order mark."""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedIOBase, BufferedReader, TextIOWrapper
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from antiphon.errors import DataError, first_line

_PEEK = 8192  # bytes in which a file shows whether it is text
_MARKS: Mapping[bytes, str] = {  # UTF-32 first: its little-endian mark begins as that of UTF-16 does
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def refuse(message: str) -> NoReturn:
    """Raise a DataError that hides what led to it."""
    raise DataError(message) from None


def _zstandard(path: Path) -> Any:
    import pyarrow as pa

    return pa.input_stream(str(path), compression="zstd")


_UNPACK: Mapping[str, Callable[[Path], Any]] = {
    ".gz": gzip.open,
    ".xz": lzma.open,
    ".bz2": bz2.open,
    ".zst": _zstandard,
}
PACKED = tuple(_UNPACK)
PLAIN_JSON = ".json"
PLAIN_TEXT = ".txt"


@dataclass(frozen=True)
class Stream:
    """Bytes of text, and what messages call them."""

    name: str
    raw: BinaryIO

    def lines(self) -> Iterator[tuple[int, str]]:
        """Yield every line, counted from 1, with its ending; a byte-order mark is none of the text."""
        first = self.raw.readline()
        encoding = next((name for mark, name in _MARKS.items() if first.startswith(mark)), None)
        if encoding is not None:
            yield from self._marked(first, encoding)
            return
        number, line = 1, first
        while line:
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                refuse(
                    f"{self.name}, line {number}: byte {error.start + 1} is 0x{line[error.start]:02x}, which is not "
                    "UTF-8; convert the file to UTF-8 first."
                )
            number, line = number + 1, self.raw.readline()

    def text_lines(self) -> Iterator[tuple[int, str]]:
        """Yield every line that has a text, without its ending; blank lines at the end are none.

        Raises DataError for a blank line before others.
        """
        blank: list[int] = []
        for number, line in self.lines():
            text = line.rstrip("\r\n")
            if not text.strip():
                blank.append(number)
                continue
            if blank:
                refuse(f"{self.name}, line {blank[0]} has no text; remove the line.")
            yield number, text

    def text(self) -> str:
        """Return all of the text."""
        return "".join(line for _, line in self.lines())

    def _marked(self, first: bytes, encoding: str) -> Iterator[tuple[int, str]]:
        text = TextIOWrapper(BufferedReader(_Rest(first, self.raw)), encoding, newline="\n")
        number = 0
        try:
            for number, line in enumerate(text, start=1):
                yield number, line
        except UnicodeError as error:
            refuse(f"{self.name}, line {number + 1} is not {encoding.upper()} ({first_line(error)}); convert the file.")


class _Rest(BufferedIOBase):
    """A stream of which the first bytes were read already, as a whole again."""

    def __init__(self, first: bytes, raw: BinaryIO) -> None:
        self._first, self._raw = first, raw

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        part = self._first[: len(buffer)] or self._raw.read(len(buffer))
        self._first = self._first[len(part) :]
        buffer[: len(part)] = part
        return len(part)


def kind_of(path: Path) -> str:
    """Return the ending that says of which kind a file is: ".jsonl" for texts.jsonl, texts.JSONL and texts.jsonl.gz."""
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    if suffixes and suffixes[-1] in _UNPACK:
        return suffixes[-2] if len(suffixes) == 2 else ""
    return suffixes[-1] if suffixes else ""


def stem_of(path: Path) -> str:
    """Return the name of a file without its endings: "texts" for texts.jsonl and texts.jsonl.gz."""
    return Path(path.stem).stem if path.suffix.lower() in _UNPACK else path.stem


def check_file(path: Path, endings: Iterable[str], *, also: str = "") -> None:
    """Raise a DataError unless there is a file of a known kind; `also` names what else the user could take."""
    if path.is_dir():
        refuse(f"{path} is a folder; name a file in it, such as {path / 'texts.jsonl'}.")
    if not path.exists():
        refuse(f"There is no file {path}; name an existing one{also}.")
    if kind_of(path) not in endings:
        refuse(
            f"{path} ends in {path.suffix.lower()!r}, which is no known kind of source; rename or convert it to one of "
            f"{', '.join(endings)} (with {', '.join(PACKED)} behind it where it is packed)."
        )


@contextmanager
def opened(path: Path) -> Iterator[Stream]:
    """Open a file of text, unpacked on the way; DataError for one that is binary, cannot be read or unpacked."""
    try:
        with _raw(path) as raw:
            head = raw.peek(_PEEK)[:_PEEK]
            if b"\0" in head and not head.startswith(tuple(_MARKS)):
                at = head.index(b"\0") + 1
                refuse(
                    f"{path} is a binary file (byte {at} is 0x00), not {kind_of(path)} text; name a file of text "
                    "(UTF-16 needs a byte-order mark)."
                )
            yield Stream(str(path), raw)
    except (EOFError, zlib.error, lzma.LZMAError) as error:
        refuse(f"{path} cannot be unpacked ({first_line(error)}); it is cut or damaged: make it anew.")
    except OSError as error:
        refuse(f"{path} cannot be read ({error.strerror or first_line(error)}); check that it is whole and yours.")


def _raw(path: Path) -> BufferedReader:
    unpack = _UNPACK.get(path.suffix.lower())
    return path.open("rb") if unpack is None else BufferedReader(unpack(path))
