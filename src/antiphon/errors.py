"""The exception tree: whatever a user can mend is an AntiphonError, one sentence with what, where and the fix.

AntiphonError
├── ConfigError        a setting, template, recipe or name that cannot be used
├── DataError          a source, line or text that cannot be read or embedded
├── ModelError         a model that cannot serve as an embedder
│   └── CheckpointError    a saved folder that is broken or not ours to load
├── TrainingError      a run that cannot go on: a loss that is no number, no steps to take
└── ParityError        two models that should give the same vectors and do not
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches

_REMEDIES: Mapping[str, str] = {
    "ImportError": "install what it names, or take a base that does without",
    "MemoryError": "take dtype='bfloat16', another device or a smaller base",
    "OutOfMemoryError": "take dtype='bfloat16', another device or a smaller base",
    "PermissionError": "make it readable for the user who runs this",
    "SafetensorError": "its safetensors are cut short or none: download them again",
    "JSONDecodeError": "one of its .json files is cut short or none: download it again",
    "UnicodeDecodeError": "one of its .json files is no text: download it again",
}
"""What the user can do about an exception of other libraries, by the name of its class or of one that it stands on."""
_INSTEAD: Mapping[str, str] = {
    # its own advice is to run what the file holds
    "UnpicklingError": "its pytorch_model.bin is cut short or holds more than weights; download it again",
}
"""What is said in place of an exception's own words."""
_SPOKEN = (OSError, ValueError, ImportError, RuntimeError)
"""Exceptions whose messages are sentences by habit; of any other the class is said too."""
_LONGEST = 300


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, for a sentence of ours; its type's name where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def closest(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """Return the known name that a wrong one was most likely meant to be, None where none is near.

    Example:
        >>> closest("ecoh", ["echo", "eol"])
        'echo'
    """
    return next(iter(get_close_matches(name, list(known), n=1, cutoff=cutoff)), None)


def among(name: str, known: Iterable[str]) -> str:
    """Return the hint behind a wrong name: the one that was likely meant, or all that there are.

    Example:
        >>> among("ecoh", ["echo", "eol"]), among("x", ["echo", "eol"])
        ("did you mean 'echo'?", 'take one of echo, eol')
    """
    names = list(known)
    near = closest(name, names)
    return f"did you mean {near!r}?" if near is not None else f"take one of {', '.join(names) or 'none'}"


class AntiphonError(Exception):
    """The root: the command line prints its message without a traceback and exits with 2."""


class ConfigError(AntiphonError):
    """A setting, template, recipe or name that cannot be used."""


class DataError(AntiphonError):
    """A source, line or text that cannot be read or embedded."""


class ModelError(AntiphonError):
    """A model that cannot serve as an embedder."""


class CheckpointError(ModelError):
    """A saved folder that is broken or not ours to load."""


class ParityError(AntiphonError):
    """Two models that should give the same vectors and do not."""


class TrainingError(AntiphonError):
    """A run that cannot go on: a loss that is no number, no steps to take."""


@contextmanager
def foreign(doing: str, kind: type[AntiphonError] = ModelError) -> Iterator[None]:
    """Turn what other libraries raise within the block into an error of ours: `doing`, what they say, the way out.

    Nothing but calls into other libraries belongs into such a block: a mistake of ours must show as one.
    """
    try:
        yield
    except AntiphonError:
        raise
    except Exception as error:  # at this edge every one of them means that the base cannot be used
        raise kind(f"{doing}: {in_one_line(error)}.") from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # what the Rust code of tokenizers ends in is no Exception
            raise
        raise kind(f"{doing}: {in_one_line(error)}.") from error


def in_one_line(error: BaseException) -> str:
    """Return what an exception of other libraries says in one line without a full stop, and the way out if known."""
    names = [parent.__name__ for parent in type(error).__mro__]
    instead = next((_INSTEAD[name] for name in names if name in _INSTEAD), None)
    if instead is not None:
        return instead
    lines = str(error).strip().splitlines() or ["no message"]
    message = " ".join(line.strip() for line in (lines[:2] if lines[0].endswith(":") else lines[:1]))
    message = message.rstrip(".") if len(message) <= _LONGEST else f"{message[:_LONGEST].rstrip()} ..."
    if isinstance(error, KeyError):
        message = message if " " in message else f"there is no {message}"
    elif not isinstance(error, _SPOKEN) and type(error) is not Exception:
        message = f"{type(error).__name__}, {message}"
    remedy = next((_REMEDIES[name] for name in names if name in _REMEDIES), None)
    return message if remedy is None else f"{message}; {remedy}"
