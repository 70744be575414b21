"""The form `portable`: a folder of files alone, for sentence-transformers and every server that reads its format."""

from __future__ import annotations

from pathlib import Path

from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling

from antiphon.errors import ModelError
from antiphon.exporting.readings import ExportedReading, freeze, kept, leaves_empty_bare, readings
from antiphon.exporting.stock_files import write_folder
from antiphon.exporting.verified import Call, FormSettings, by_prompts
from antiphon.modules import SpanPooling
from antiphon.text.template import fills_slots, template_of
from antiphon.text.tokens import PieceTokenizer, sequences
from antiphon.training.card_usage import use_sections
from antiphon.training.model_card import write_card

POOLINGS = ("cls", "mean", "lasttoken")
"""What sentence-transformers, text-embeddings-inference and vLLM all know."""
_AS_STOCK = {"last": "lasttoken", "mean": "mean", "weighted_mean": "weightedmean"}
_OUT = 'export it to "hub" or "onnx"'


def write(model: SentenceTransformer, folder: Path, settings: FormSettings) -> dict[str, Call]:
    """Write one folder where prompts stay a matter of the caller, one a reading where they are frozen.

    Raises ModelError, with the way out, where stock modules cannot say what the model does.
    """
    wanted = readings(model)
    mode = stock_mode(model, wanted)
    if not fills_slots(model) and not settings.freeze_prompts:
        write_folder(
            model, folder, kept(model), mode=mode, prompts=model.prompts, dimensions=settings.dimensions, weights=None
        )
        write_card(folder, model, settings.source, use_sections("portable", folder))
        return by_prompts(folder, wanted)
    calls: dict[str, Call] = {}
    for reading in wanted:
        first = next((call.folder for call in calls.values()), None)
        tokenizer = freeze(model, reading)
        write_folder(
            model,
            folder / reading.folder,
            tokenizer,
            mode=mode,
            prompts=dict.fromkeys(("query", "document", reading.name), ""),  # none is left to be glued on
            dimensions=settings.dimensions,
            weights=first,
        )
        place = folder / reading.folder
        bare = leaves_empty_bare(model, reading, tokenizer)
        write_card(place, model, settings.source, use_sections("portable", place, reading.name, empty_bare=bare))
        calls[reading.name] = Call(place)
    return calls


def stock_mode(model: SentenceTransformer, wanted: list[ExportedReading]) -> str:
    """Return the mode of stock pooling that does what the model does.

    Raises ModelError, with the way out, where there is none.
    """
    for module in list(model)[2:]:
        if not isinstance(module, Dense | Normalize):
            raise ModelError(_cannot(f"a {type(module).__name__} module, which other engines pass over", _OUT))
    pooling = model[1]
    if isinstance(pooling, SpanPooling):
        mode = _AS_STOCK[pooling.pooling_mode]
        if mode != "lasttoken" and not all(_pools_all(model, reading) for reading in wanted):
            raise ModelError(
                _cannot(
                    f"pooling {pooling.pooling_mode!r} over a part of the tokens, and stock pooling takes all of them, "
                    "with BOS, the template's words and the first copy",
                    f'build it with pooling="last", or {_OUT}',
                )
            )
    elif isinstance(pooling, Pooling):
        mode = pooling.pooling_mode
    else:
        raise ModelError(_cannot(f"a {type(pooling).__name__} module in the place of pooling", _OUT))
    if mode not in POOLINGS:
        raise ModelError(_cannot(f"pooling {mode!r}, which servers do not know", _OUT))
    if not getattr(pooling, "include_prompt", True):
        raise ModelError(_cannot("pooling that leaves the prompt out, which servers do not do", _OUT))
    return str(mode)


def _pools_all(model: SentenceTransformer, reading: ExportedReading) -> bool:
    """Return whether the pooled span of a reading is the whole sequence."""
    template = template_of(model)
    if template is None:
        return False
    pieces = PieceTokenizer(model.tokenizer)
    most = model.max_seq_length
    (row,) = sequences(["a text"], template, pieces, prompt=reading.prompt, side=reading.side, max_tokens=most)
    return all(row.pooled)


def _cannot(what: str, remedy: str) -> str:
    return f"A portable folder cannot say what this model does: it has {what}; {remedy}."
