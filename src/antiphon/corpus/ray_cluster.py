"""Ray, for whatever has workers: where it runs, what it has, a model on its way to a worker, and its errors as ours."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from sentence_transformers import SentenceTransformer

from antiphon.errors import ConfigError, DataError, among, first_line

Engine = Literal["local", "ray"]
ENGINES: tuple[Engine, ...] = get_args(Engine)
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


def resources(ray: Any, settings: RaySettings) -> tuple[bool, int]:
    """Return whether workers have GPUs, and how many there are; ConfigError where Ray has not as much."""
    there: Mapping[str, float] = ray.cluster_resources()
    gpus, cores = int(there.get("GPU", 0)), int(there.get("CPU", 0))
    most = gpus or cores // settings.cores
    workers = settings.workers or most
    if not 1 <= workers <= most:
        has = f"{gpus} GPUs" if gpus else f"{cores} cores, and a worker takes {settings.cores}"
        raise ConfigError(f"{workers} workers are wanted where Ray has {has}; take at least one and at most {most}.")
    return gpus > 0, workers


@contextmanager
def connected(settings: RaySettings) -> Iterator[Any]:
    """Give Ray, connected: to what this process has joined already, to an address, or to one that is started here."""
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
        yield ray
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


def packed(model: SentenceTransformer) -> bytes:
    """Return a model as it is, whatever made it: no worker needs the files that it was opened from."""
    from ray import cloudpickle

    buffer = io.BytesIO()
    torch.save(model, buffer, pickle_module=cloudpickle)
    return buffer.getvalue()


def unpacked(packed: bytes, threads: int | None) -> SentenceTransformer:
    """Return a model in a worker: on its CPU with so many threads, on its GPU where that is None."""
    if threads is not None:
        torch.set_num_threads(threads)
    device = "cuda" if threads is None else "cpu"
    model: SentenceTransformer = torch.load(io.BytesIO(packed), map_location=device, weights_only=False)
    return model.to(device)


def out_of_memory(error: BaseException) -> DataError:
    """Return what a worker says whose own memory is full."""
    return DataError(f"A Ray worker ran out of memory ({first_line(error):.200}); {_FIXES['OutOfMemoryError']}.")


def _names(error: BaseException | None) -> Iterator[str]:
    while error is not None:
        yield from (kind.__name__ for kind in type(error).__mro__)
        error = getattr(error, "cause", None) or error.__cause__
