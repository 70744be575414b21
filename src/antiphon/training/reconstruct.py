"""What a vector remembers: the text that the model decodes from it, as Stage I taught it to.

Shapes: D width, V vocabulary.
"""

from __future__ import annotations

import torch
from sentence_transformers import SentenceTransformer
from transformers import DynamicCache

from antiphon import compat
from antiphon.errors import ConfigError, DataError
from antiphon.model.causality import is_bidirectional
from antiphon.model.evaluation_mode import evaluation_mode
from antiphon.model.prompts import prompt_of
from antiphon.text.template import Side
from antiphon.training.losses.decoding import CAUSAL, prepare, vectors
from antiphon.training.losses.head import Head, borrowed_head, embedding_of


@torch.no_grad()
def reconstruct(
    model: SentenceTransformer,
    text: str,
    *,
    side: Side = "query",
    prompt: str | None = None,
    max_tokens: int = 64,
    temperature: float = 0.0,
    seed: int = 0,
) -> str:
    """Return what the model says when all it has is the vector of a text.

    The vector stands in the place of the first token (Anchor Embedding, section 3.1), and the other side of its pair is
    what Stage I taught it to say there. Temperature 0 takes the likeliest token each time, any other draws from the
    distribution sharpened by it, the same for the same `seed`. It ends at `max_tokens` tokens or at EOS: training has
    EOS as no target, so most texts end by length. `side` and `prompt` are those of the text.

    Raises ConfigError for a length below 1 or a negative temperature, DataError for an empty text, ModelError where
    the model has no vocabulary head or its vector no token's width.
    """
    if max_tokens < 1:
        raise ConfigError(f"max_tokens is {max_tokens}; at least 1 token has to be decoded.")
    if temperature < 0:
        raise ConfigError(f"temperature is {temperature}; it is 0 for the likeliest token, or above.")
    if not text.strip():
        raise DataError("There is no text to make a vector of.")
    prepare(model)
    generator = torch.Generator(device="cpu").manual_seed(seed)
    with evaluation_mode(model), borrowed_head(model) as head:
        anchor_D = _vector(model, text, side, prompt)
        ids = _decode(model, head, anchor_D, max_tokens, temperature, generator)
    return str(model.tokenizer.decode(ids, skip_special_tokens=True)).strip()


def _vector(model: SentenceTransformer, text: str, side: Side, prompt: str | None) -> torch.Tensor:
    given = prompt_of(model, side) if prompt is None else prompt
    features = model.preprocess([text], prompt=given or None, task=side)
    moved = {name: value.to(model.device) if torch.is_tensor(value) else value for name, value in features.items()}
    return vectors(model, moved)[0]


def _decode(
    model: SentenceTransformer,
    head: Head,
    anchor_D: torch.Tensor,
    most: int,
    temperature: float,
    generator: torch.Generator,
) -> list[int]:
    """Return the ids that follow the vector, one pass a token, keys and values kept."""
    backbone, embedding = model[0].model, embedding_of(model[0])
    keyword = {CAUSAL: True} if is_bidirectional(backbone) else {}
    keyword[compat.cache_argument(backbone)] = DynamicCache(config=backbone.config)
    end = model.tokenizer.eos_token_id
    embedded_11D = anchor_D[None, None].to(next(embedding.parameters()).dtype)
    ids: list[int] = []
    while len(ids) < most:
        states = backbone(inputs_embeds=embedded_11D, use_cache=True, **keyword).last_hidden_state
        logits_V = (states[0, -1] * head.scale @ head.weight.T).float()
        if head.softcap is not None:
            logits_V = head.softcap * torch.tanh(logits_V / head.softcap)
        chosen = _choose(logits_V, temperature, generator)
        if chosen == end:
            break
        ids.append(chosen)
        embedded_11D = embedding(torch.tensor([[chosen]], device=anchor_D.device))
    return ids


def _choose(logits_V: torch.Tensor, temperature: float, generator: torch.Generator) -> int:
    if not temperature:
        return int(logits_V.argmax())
    shares_V = (logits_V.cpu() / temperature).softmax(dim=0)
    return int(torch.multinomial(shares_V, 1, generator=generator))
