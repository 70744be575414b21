"""Texts and token ids: how many tokens a text has, and what text an array of ids stands for."""

from __future__ import annotations

from collections.abc import Sequence

from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from antiphon.errors import DataError, ModelError
from antiphon.text.tokenizer_json import assembled, parts_of, plain_text, without_prefix

AT_ONCE = 100
"""Texts that are counted together, so that other threads get their turn."""


class TextTokenizer:
    """The model's tokenizer without template, special tokens and cutting.

    It is a copy: the model's own is in use in another thread, which a tokenizer does not bear.
    """

    def __init__(self, model: SentenceTransformer) -> None:
        tokenizer = model.tokenizer
        backend = tokenizer if isinstance(tokenizer, Tokenizer) else getattr(tokenizer, "backend_tokenizer", None)
        if not isinstance(backend, Tokenizer):
            raise ModelError(f"{type(model[0]).__name__} has no fast tokenizer (tokenizer.json), which serving needs.")
        # a template in the post-processor would be counted and decoded with the text
        parts = {**plain_text(parts_of(backend)), "post_processor": None}
        self._forms = [_verbatim(backend, parts), _verbatim(backend, without_prefix(parts))]
        self._opening, self._closing = _specials(tokenizer)

    def counts(self, texts: Sequence[str]) -> list[int]:
        """Return the tokens of every text, N numbers."""
        found: list[int] = []
        for start in range(0, len(texts), AT_ONCE):
            encodings = self._forms[0].encode_batch_fast(list(texts[start : start + AT_ONCE]), add_special_tokens=False)
            found.extend(len(encoding.ids) for encoding in encodings)
        return found

    def text(self, ids: Sequence[int]) -> str:
        """Return the text that this tokenizer cuts into `ids`; a BOS before and an EOS behind them are left out.

        Raises DataError where there is no such text: ids of another tokenizer would give a vector of nonsense. Such
        ids of a single short text may get by, those of several texts hardly ever.
        """
        own = list(ids)
        if own[:1] and own[0] in self._opening:
            own = own[1:]
        if own[-1:] and own[-1] in self._closing:
            own = own[:-1]
        size = self._forms[0].get_vocab_size(with_added_tokens=True)
        outside = next((index for index in own if not 0 <= index < size), None)
        if outside is not None:
            raise DataError(f"Token id {outside} is none of this model's, whose ids go from 0 to {size - 1}. {_ADVICE}")
        text = self._forms[0].decode(own, skip_special_tokens=False)
        if not own or all(form.encode(text, add_special_tokens=False).ids != own for form in self._forms):
            raise DataError(f"These {len(ids)} token ids are of no text that this model's tokenizer reads. {_ADVICE}")
        return text


_ADVICE = (
    "Send strings (LangChain: check_embedding_ctx_length=False), or ids of the model's own tokenizer "
    "without special tokens."
)


def _verbatim(backend: Tokenizer, parts: dict[str, object]) -> Tokenizer:
    tokenizer = assembled(backend, parts)
    tokenizer.encode_special_tokens = True
    return tokenizer


def _specials(tokenizer: object) -> tuple[set[int], set[int]]:
    """Return the ids that may open and that may close a sequence."""
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        return set(), set()
    pairs = ((tokenizer.bos_token_id, tokenizer.cls_token_id), (tokenizer.eos_token_id, tokenizer.sep_token_id))
    opening, closing = ({index for index in pair if isinstance(index, int)} for pair in pairs)
    return opening, closing
