"""From installed packages to token ids: harvest docstrings, train the BPE, write the rows.

The standard library is never trained on: the demo searches it, and the model card measures on it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from antiphon.data.docstrings import fingerprint, harvest, of_standard_library
from antiphon.errors import DataError
from tools.nano.recipe import Data

PAD, BOS, EOS = "<pad>", "<s>", "</s>"


@dataclass(frozen=True)
class Corpus:
    """Token ids of documents, each `<s> text </s>`, one after the other; and how they were counted."""

    tokenizer: Tokenizer
    train: npt.NDArray[np.uint16]
    heldout: npt.NDArray[np.uint16]
    """Docstrings of the same packages, kept apart by hash."""
    unseen: npt.NDArray[np.uint16]
    """Docstrings of the standard library."""
    documents: int
    characters: int


def build(roots: Sequence[Path], data: Data, *, seed: int) -> Corpus:
    """Read every docstring below `roots` and return the corpus, the same for the same packages and seed."""
    library = [docstring.text for docstring in of_standard_library()]
    kept_apart = {fingerprint(text) for text in library}
    train: list[str] = []
    heldout: list[str] = []
    for root in roots:
        for docstring in harvest(root, without=kept_apart):
            key = fingerprint(docstring.text)
            kept_apart.add(key)
            (heldout if int.from_bytes(key[:4], "big") % data.heldout_one_in == 0 else train).append(docstring.text)
    if len(train) < 1000 or not heldout:
        raise DataError(
            f"Only {len(train)} docstrings were found below {', '.join(map(str, roots))}; "
            "name folders with installed packages by --root."
        )
    random.Random(seed).shuffle(train)
    tokenizer = _train_tokenizer(train, data.vocabulary)
    return Corpus(
        tokenizer=tokenizer,
        train=_encode(tokenizer, train),
        heldout=_encode(tokenizer, heldout),
        unseen=_encode(tokenizer, library),
        documents=len(train),
        characters=sum(map(len, train)),
    )


def _train_tokenizer(texts: Sequence[str], vocabulary: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts[:40_000], trainer)  # more text moves no merge that matters at this size
    bos, eos = tokenizer.token_to_id(BOS), tokenizer.token_to_id(EOS)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A {EOS}", special_tokens=[(BOS, bos), (EOS, eos)]
    )
    return tokenizer


def _encode(tokenizer: Tokenizer, texts: Sequence[str]) -> npt.NDArray[np.uint16]:
    pieces = [
        np.asarray(encoding.ids, dtype=np.uint16)
        for start in range(0, len(texts), 2000)
        for encoding in tokenizer.encode_batch_fast(texts[start : start + 2000])
    ]
    return np.concatenate(pieces)


def rows(ids: npt.NDArray[np.uint16], *, row: int, batch_tokens: int, seed: int) -> Iterator[npt.NDArray[np.int64]]:
    """Yield batches of shape (B, row) for ever; every epoch cuts the stream elsewhere and shuffles anew.

    B = batch_tokens // row.
    """
    generator = np.random.default_rng(seed)
    batch = max(1, batch_tokens // row)
    while True:
        start = int(generator.integers(row))
        usable = (len(ids) - start) // row * row
        table = ids[start : start + usable].reshape(-1, row)
        if len(table) < batch:
            raise DataError(f"{len(ids)} tokens do not fill one batch of {batch} rows of {row}; lower batch_tokens.")
        order = generator.permutation(len(table))
        for first in range(0, len(order) - batch + 1, batch):
            yield table[order[first : first + batch]].astype(np.int64)
