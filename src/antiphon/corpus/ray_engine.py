"""The vectors of a source by Ray Data: one task reads it, a pool of workers embeds, and this process writes the shards.

A row of Ray's data set is the texts of a shard. Every worker packs it as one process would, so the rows are the same
whatever the engine. A worker that dies is started again and its shard given to it anew, a few times; what is written is
in the manifest, so a run that ends goes on by the same command and needs no checkpoint of Ray's. N texts, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from sentence_transformers import SentenceTransformer

from antiphon.corpus.job import Work
from antiphon.corpus.ray_cluster import RETRIES, RaySettings, SentModel, Workers, answered, connected, raised_as_ours
from antiphon.corpus.shards import records_digest
from antiphon.corpus.windows import EncodeSettings, ShardEncoder
from antiphon.data.text_columns import Record
from antiphon.errors import AntiphonError, ConfigError, DataError, ModelError
from antiphon.model.unit_vectors import Vectors

_KINDS: Mapping[str, type[AntiphonError]] = {kind.__name__: kind for kind in (DataError, ModelError, ConfigError)}


@contextmanager
def ray_encoder(
    model: SentenceTransformer, encoding: EncodeSettings, work: Work, settings: RaySettings
) -> Iterator[Callable[..., Vectors]]:
    """Give what is called with the texts of each of the work's lists in turn and returns their vectors (N, D).

    Raises ConfigError where Ray is not installed or reached, or has not the resources; the call raises DataError where
    workers died too often or the source has changed meanwhile, and what they raised themselves.
    """
    with connected(settings) as workers:
        with raised_as_ours():
            stream = _stream(workers, model, encoding, work)
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

    def __init__(self, model: SentModel, encoding: EncodeSettings) -> None:
        self._model, self._encoding = model, encoding
        self._encode: ShardEncoder | None = None

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the vectors of a row of texts; what a user can mend comes back as a sentence and ends the run."""
        row = batch.to_pylist()[0]
        if row["error"]:
            return _row(error=row["error"], kind=row["kind"])
        vectors_ND = answered(lambda: self._vectors(row["texts"], row["names"]))
        if isinstance(vectors_ND, AntiphonError):
            return _failed(vectors_ND)
        return _row(digest=_digest(row["texts"], row["names"]), vectors=np.ascontiguousarray(vectors_ND).tobytes())

    def _vectors(self, texts: Sequence[str], names: Sequence[str]) -> Vectors:
        self._encode = self._encode or self._encoding.encoder(self._model.opened())
        return self._encode(texts, names)


def _stream(
    workers: Workers, model: SentenceTransformer, encoding: EncodeSettings, work: Work
) -> Generator[pa.Table, None, None]:
    ray = workers.ray
    here = {"ray.io/node-id": ray.get_runtime_context().get_node_id()}  # where the source can be read, as it was before
    data = ray.data.read_datasource(_datasource(work), override_num_blocks=1, num_cpus=0, label_selector=here)
    data.context.target_max_block_size = 1  # a row, which is a shard, is a block of its own: workers take turns
    data.context.execution_options.preserve_order = True
    data.context.enable_progress_bars = False
    data = data.map_batches(
        _Worker,
        batch_size=1,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=workers.number),
        fn_constructor_args=(workers.sent(model), encoding),
        num_cpus=workers.threads,
        num_gpus=1 if workers.threads is None else None,
        max_task_retries=RETRIES,  # an actor is started again without limit, a shard is not tried so
    )
    found: Generator[pa.Table, None, None] = iter(
        data.iter_batches(batch_size=1, batch_format="pyarrow", prefetch_batches=1)
    )
    return found


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
