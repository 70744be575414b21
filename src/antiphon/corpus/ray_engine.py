"""The vectors of a source by Ray Data: one task reads it, a pool of workers embeds, and this process writes the shards.

A row of Ray's data set is the texts of a shard. Every worker packs it as one process would, so the rows are the same
whatever the engine. A worker that dies is started again and its shard given to it anew, a few times; what is written is
in the manifest, so a run that ends goes on by the same command and needs no checkpoint of Ray's. N texts, D width.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from sentence_transformers import SentenceTransformer

from antiphon.corpus.job import Work
from antiphon.corpus.shards import records_digest
from antiphon.corpus.windows import EncodeSettings, ShardEncoder
from antiphon.data.text_columns import Record
from antiphon.errors import AntiphonError, ConfigError, DataError, ModelError, first_line
from antiphon.model.unit_vectors import Vectors

_RETRIES = 3
"""Times that a shard is tried again whose worker died."""
_KINDS: Mapping[str, type[AntiphonError]] = {kind.__name__: kind for kind in (DataError, ModelError, ConfigError)}
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
    """Where Ray runs and how many workers embed.

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


@contextmanager
def ray_encoder(
    model: SentenceTransformer, encoding: EncodeSettings, work: Work, settings: RaySettings
) -> Iterator[Callable[..., Vectors]]:
    """Give what is called with the texts of each of the work's lists in turn and returns their vectors (N, D).

    Raises ConfigError where Ray is not installed or reached, or has not the resources; the call raises DataError where
    workers died too often or the source has changed meanwhile, and what they raised themselves.
    """
    with _connected(settings) as ray:
        gpus, workers = _resources(ray, settings)
        with raised_as_ours():
            stream = _stream(ray, model, encoding, work, gpus=gpus, workers=workers, cores=settings.cores)
        with closing(stream):  # or the workers would stay when the run ends early
            yield _Results(stream, encoding.width)


@dataclass(frozen=True)
class _Results:
    """The vectors that come from the workers, in the order of the lists."""

    stream: Iterator[pa.Table]
    width: int

    def __call__(
        self, texts: Sequence[str], names: Sequence[str], on_texts: Callable[[int], None] | None = None
    ) -> Vectors:
        with raised_as_ours():
            row = next(self.stream, None)
        found = {} if row is None else row.to_pylist()[0]
        if found.get("error"):
            raise _KINDS[found["kind"]](found["error"])
        if found.get("digest") != _digest(texts, names):
            raise DataError(
                f"{names[0]!r:.80} and the texts behind it are not what a Ray worker read: the source has changed, or "
                "is another on that machine. Put it where all see the same, and run the same command to go on."
            )
        if on_texts is not None:
            on_texts(len(texts))
        return np.frombuffer(found["vectors"], dtype=np.float32).reshape(len(texts), self.width)


class _Worker:
    """Lives in an actor of Ray's with a model of its own."""

    def __init__(self, model: Sequence[Any], encoding: EncodeSettings, threads: int | None) -> None:
        self._model, self._encoding, self._threads = model[0], encoding, threads
        self._encode: ShardEncoder | None = None

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the vectors of a row of texts; what a user can mend comes back as a sentence and ends the run."""
        row = batch.to_pylist()[0]
        if row["error"]:
            return _row(error=row["error"], kind=row["kind"])
        try:
            self._encode = self._encode or self._opened()
            vectors_ND = self._encode(row["texts"], row["names"])
        except AntiphonError as error:
            return _failed(error)
        except (MemoryError, torch.OutOfMemoryError) as error:
            return _failed(DataError(f"A Ray worker ran out of memory ({first_line(error):.200}); {_MEMORY}."))
        return _row(digest=_digest(row["texts"], row["names"]), vectors=np.ascontiguousarray(vectors_ND).tobytes())

    def _opened(self) -> ShardEncoder:
        import ray

        if self._threads is not None:
            torch.set_num_threads(self._threads)
        device = "cpu" if self._threads is not None else "cuda"
        # the driver's own model, whatever made it: no worker needs the files that it was opened from
        model = torch.load(io.BytesIO(ray.get(self._model)), map_location=device, weights_only=False)
        return self._encoding.encoder(model.to(device))


_MEMORY = _FIXES["OutOfMemoryError"]


def _stream(
    ray: Any, model: SentenceTransformer, encoding: EncodeSettings, work: Work, *, gpus: bool, workers: int, cores: int
) -> Generator[pa.Table, None, None]:
    here = {"ray.io/node-id": ray.get_runtime_context().get_node_id()}  # where the source can be read, as it was before
    data = ray.data.read_datasource(_datasource(work), override_num_blocks=1, num_cpus=0, label_selector=here)
    data.context.target_max_block_size = 1  # a row, which is a shard, is a block of its own: workers take turns
    data.context.execution_options.preserve_order = True
    data.context.enable_progress_bars = False
    data = data.map_batches(
        _Worker,
        batch_size=1,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=workers),
        fn_constructor_args=([ray.put(_packed(model))], encoding, None if gpus else cores),
        num_cpus=None if gpus else cores,
        num_gpus=1 if gpus else None,
        max_task_retries=_RETRIES,  # an actor is started again without limit, a shard is not tried so
    )
    found: Generator[pa.Table, None, None] = iter(
        data.iter_batches(batch_size=1, batch_format="pyarrow", prefetch_batches=1)
    )
    return found


def _packed(model: SentenceTransformer) -> bytes:
    from ray import cloudpickle

    buffer = io.BytesIO()
    torch.save(model, buffer, pickle_module=cloudpickle)
    return buffer.getvalue()


def _datasource(work: Work) -> Any:
    """Return Ray Data's source of one task, which reads the texts in order wherever it runs, again if it must."""
    from ray.data.block import BlockMetadata
    from ray.data.datasource import Datasource, ReadTask

    class Texts(Datasource):  # type: ignore[misc]  # Ray is not there to whom it is not installed
        def get_read_tasks(self, parallelism: int, *arguments: Any, **options: Any) -> list[Any]:
            return [ReadTask(lambda: _read(work), BlockMetadata(None, None, None, None))]

        def estimate_inmemory_data_size(self) -> int | None:
            return None

    return Texts()


def _read(work: Work) -> Iterator[pa.Table]:
    try:
        for records in work.lists():
            yield _row(texts=[one.text for one in records], names=[one.id for one in records])
    except AntiphonError as error:
        yield _failed(error)


_SCHEMA = pa.schema(
    {
        "texts": pa.large_list(pa.large_string()),
        "names": pa.large_list(pa.large_string()),
        "digest": pa.string(),
        "vectors": pa.large_binary(),
        "kind": pa.string(),
        "error": pa.string(),
    }
)


def _row(**values: Any) -> pa.Table:
    return pa.Table.from_pylist([{name: values.get(name) for name in _SCHEMA.names}], _SCHEMA)


def _failed(error: AntiphonError) -> pa.Table:
    kind = next(name for name, kind in _KINDS.items() if isinstance(error, kind))
    return _row(error=str(error), kind=kind)


def _digest(texts: Sequence[str], names: Sequence[str]) -> str:
    return records_digest([Record(name, text) for name, text in zip(names, texts, strict=True)])


def _resources(ray: Any, settings: RaySettings) -> tuple[bool, int]:
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
def _connected(settings: RaySettings) -> Iterator[Any]:
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
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            where = f"at {settings.address}" if settings.address else "here"
            raise ConfigError(f"Ray is not to be had {where} ({first_line(error):.200}); check the address.") from error
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
            f"Ray could not go on, after {_RETRIES} more tries ({type(error).__name__}: {first_line(error):.200}); "
            f"{fix}, and run the same command to go on: the shards that are written stay."
        ) from error


def _names(error: BaseException | None) -> Iterator[str]:
    while error is not None:
        yield from (kind.__name__ for kind in type(error).__mro__)
        error = getattr(error, "cause", None) or error.__cause__
