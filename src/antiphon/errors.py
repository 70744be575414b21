"""The exception tree: whatever a user can mend is an AntiphonError, one sentence with what, where and the fix.

AntiphonError
├── ConfigError        a setting, template, recipe or name that cannot be used
├── DataError          a source, line or text that cannot be read or embedded
├── ModelError         a model that cannot serve as an embedder
│   └── CheckpointError    a saved folder that is broken or not ours to load
├── TrainingError      a run that cannot go on: a loss that is no number, no steps to take
└── ParityError        two models that should give the same vectors and do not
"""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, for a sentence of ours; its type's name where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


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
