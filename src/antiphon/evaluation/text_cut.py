"""Texts cut to whole words, as LLM2Vec and Anchor cut them for every task: at about 400 tokens of the text alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from sentence_transformers import SentenceTransformer
from transformers import PreTrainedTokenizerBase

from antiphon.errors import ConfigError
from antiphon.evaluation.embedder import Encode
from antiphon.evaluation.vector_store import Vectors
from antiphon.text.template import Side
from antiphon.text.tokens import CHARACTERS_A_TOKEN, PieceTokenizer


def cut_words(text: str, pieces: PieceTokenizer, most: int, *, longest: int = 512) -> str:
    """Return the text, or as many of its first words as take at most so many tokens.

    As in the published code the number of words is lowered by the ratio that the text is too long by, over and over,
    so that somewhat fewer than `most` may be left, and a text counts as having `longest` tokens at most, what the model
    reads. White space between the words of a text that is cut becomes a space.
    """
    tokens = _tokens(text, pieces, longest)
    while tokens > most:
        words = text.split()
        if len(words) < 2:
            return text  # one word cannot be cut; the model cuts its tokens
        text = " ".join(words[: max(1, int(len(words) * most / tokens))])
        tokens = _tokens(text, pieces, longest)
    return text


def cutting(encode: Encode, model: SentenceTransformer, most: int | None) -> Encode:
    """Return the function that cuts texts before it embeds them; the same one where nothing is cut.

    Raises ConfigError for a model without a tokenizer or a length that is none.
    """
    if most is None:
        return encode
    if most < 1 or not isinstance(model.tokenizer, PreTrainedTokenizerBase):
        raise ConfigError(f"cut is {most!r}; a number of tokens of at least 1, of a model with a tokenizer, is wanted.")
    pieces, longest = PieceTokenizer(model.tokenizer), max(most + 1, model.max_seq_length or 512)

    def cut(texts: Sequence[str], prompt: str, side: Side) -> Vectors:
        return encode([cut_words(text, pieces, most, longest=longest) for text in texts], prompt, side)

    return cut


def identity_of_cut(identity: str, most: int | None) -> str:
    """Return what stands for a model and its cut, so that no score or vector of another length is taken for its own."""
    return identity if most is None else hashlib.sha256(f"{identity} cut {most}".encode()).hexdigest()


def _tokens(text: str, pieces: PieceTokenizer, longest: int) -> int:
    return min(longest, len(pieces.texts([text[: CHARACTERS_A_TOKEN * longest]], first=True)[0]))
