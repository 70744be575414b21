"""Ray, for whatever has workers: where it runs, what it has, a model on its way to a worker, and its errors as ours."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

import torch
from sentence_transformers import SentenceTransformer

from antiphon.errors import AntiphonError, ConfigError, DataError, among, first_line

Engine = Literal["local", "ray"]
ENGINES: tuple[Engine, ...] = get_args(Engine)
Answer = TypeVar("Answer")
RETRIES = 3
"""Times that a shard or a task is tried again whose worker died."""
ENVIRONMENT: Mapping[str, str] = {
    "RAY_USAGE_STATS_ENABLED": "0",  # which would tell Ray's makers of every run
    "RAY_worker_niceness": "0",  # else workers run behind all others of the machine: 15 by default
}
"""What Ray reads when it is started here, unless the user has set it."""
_FIXES: Mapping[str, str] = {
    "OutOfMemoryError": "take fewer workers, fewer batch_tokens or a node with more memory",
    "RayActorError": "a worker died again and again, perhaps of too little memory: take fewer workers or batch_tokens",
    "OutOfDiskError": "make room where Ray keeps what does not fit into memory (its temp dir, /tmp/ray)",
    "ObjectStoreFullError": "take a smaller shard_size, or start Ray with a larger object store",
}
"""What the user can do about an error of Ray's, by the name of its class."""


@dataclass(frozen=True, kw_only=True)
class RaySettings:
    """Where Ray runs, and how many workers it has for us.

    Example:
        >>> RaySettings(workers=2).cores
        1
    """

    address: str | None = None
    """Of a cluster ("auto" finds one on this machine); None starts Ray here for the run, or takes what has joined."""
    workers: int | None = None
    """Each with a model; one for every GPU of the cluster, or without GPUs for every `cores` of its cores."""
    cores: int = 1
    """CPU cores, and threads, of a worker that has no GPU."""


def settings_of(engine: Engine | RaySettings) -> RaySettings | None:
    """Return Ray's settings, None for this process; ConfigError for an engine that is none."""
    if isinstance(engine, RaySettings):
        return engine
    if engine not in ENGINES:
        raise ConfigError(f"There is no engine {engine!r}; {among(engine, ENGINES)}.")
    return RaySettings() if engine == "ray" else None


class SentModel:
    """A model on its way to workers, each of which opens it when it needs it first."""

    def __init__(self, packed: Any, threads: int | None) -> None:
        """`packed` is Ray's reference to its bytes; it goes on a CPU with so many threads, on a GPU without any."""
        self._packed, self._threads = packed, threads

    def opened(self) -> SentenceTransformer:
        """Return the model, in a worker."""
        import ray

        if self._threads is not None:
            torch.set_num_threads(self._threads)
        device = "cuda" if self._threads is None else "cpu"
        packed = io.BytesIO(ray.get(self._packed))
        model: SentenceTransformer = torch.load(packed, map_location=device, weights_only=False)
        return model.to(device)


@dataclass(frozen=True)
class Workers:
    """Ray, connected, and what each of its workers has for us."""

    ray: Any
    number: int
    threads: int | None
    """CPU cores, and threads, of each; None where each has a GPU instead."""

    def sent(self, model: SentenceTransformer) -> SentModel:
        """Return a model for the workers as it is, whatever made it: none needs the files that it was opened from."""
        from ray import cloudpickle

        buffer = io.BytesIO()
        torch.save(model, buffer, pickle_module=cloudpickle)
        return SentModel(self.ray.put(buffer.getvalue()), self.threads)


@contextmanager
def connected(settings: RaySettings) -> Iterator[Workers]:
    """Give Ray's workers: of what this process has joined already, of an address, or of one that is started here.

    Raises ConfigError where Ray is not installed or reached, or has not the resources.
    """
    for name in ("workers", "cores"):
        value = getattr(settings, name)
        if value is not None and value < 1:
            raise ConfigError(f"{name} is {value}; a whole number of at least 1 is wanted.")
    try:
        import ray
        import ray.data
    except ImportError:
        raise ConfigError("The engine ray needs Ray Data: pip install 'antiphon[scale]'.") from None
    own = not ray.is_initialized()
    if own:
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        try:
            ray.init(
                settings.address or "local", include_dashboard=None if settings.address else False,
                log_to_driver=False, logging_level="ERROR",
            )  # fmt: skip
        except Exception as error:  # of the bare class where a process of Ray's is too slow to start
            where = f"at {settings.address}" if settings.address else "here"
            fix = (
                "check the address"
                if settings.address
                else "start it when this machine is less busy, or by `ray start`"
            )
            raise ConfigError(f"Ray is not to be had {where} ({first_line(error):.200}); {fix}.") from error
    try:
        yield _workers(ray, settings)
    finally:
        if own:
            ray.shutdown()


@contextmanager
def raised_as_ours() -> Iterator[None]:
    """Raise as a DataError what Ray says of workers, memory and disks that are gone."""
    from ray.data.exceptions import SystemException
    from ray.exceptions import RayError

    try:
        yield
    except (RayError, SystemException) as error:
        fix = next((_FIXES[name] for name in _names(error) if name in _FIXES), "see the logs of Ray")
        raise DataError(
            f"Ray could not go on, after {RETRIES} more tries ({type(error).__name__}: {first_line(error):.200}); "
            f"{fix}, and run the same command to go on: what is written stays."
        ) from error


def answered(call: Callable[[], Answer]) -> Answer | AntiphonError:
    """Return what a worker's call returns; what a user can mend comes back as it is, without Ray's traceback."""
    try:
        return call()
    except AntiphonError as error:
        return error
    except (MemoryError, torch.OutOfMemoryError) as error:
        return DataError(f"A Ray worker ran out of memory ({first_line(error):.200}); {_FIXES['OutOfMemoryError']}.")


def _workers(ray: Any, settings: RaySettings) -> Workers:
    there: Mapping[str, float] = ray.cluster_resources()
    gpus, cores = int(there.get("GPU", 0)), int(there.get("CPU", 0))
    most = gpus or cores // settings.cores
    workers = settings.workers or most
    if not 1 <= workers <= most:
        has = f"{gpus} GPUs" if gpus else f"{cores} cores, and a worker takes {settings.cores}"
        raise ConfigError(f"{workers} workers are wanted where Ray has {has}; take at least one and at most {most}.")
    return Workers(ray, workers, None if gpus else settings.cores)


def _names(error: BaseException | None) -> Iterator[str]:
    while error is not None:
        yield from (kind.__name__ for kind in type(error).__mro__)
        error = getattr(error, "cause", None) or error.__cause__
