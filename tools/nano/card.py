"""Write a trained model down: weights in 16 bits, tokenizer, and a model card with measured figures only."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from antiphon.model.checkpoint import new_folder
from tools.nano.corpus import BOS, EOS, PAD, Corpus
from tools.nano.pretrain import perplexity, unigram_perplexity
from tools.nano.recipe import PretrainRecipe

OPENINGS = (
    "Return the",
    "Compute the mean of",
    "Raises\n------\nValueError",
    "This function",
    "Parameters\n----------\n",
)
CARD = """# antiphon/nano

A causal language model small enough to ship: Llama shape, {parameters:,} parameters ({layers} layers, width {width},
{heads} heads / {key_value_heads} key-value head, MLP {intermediate}, tied head, {positions:,} positions), stored in
bfloat16 and read in float32, {megabytes:.1f} MB, with its own byte-level BPE of {vocabulary:,} tokens. It exists so
that `antiphon demo`, the tests and the first steps of a newcomer run without a model hub. It writes phrases of
docstrings, not paragraphs; take a real model for real work.

**Read:** {documents:,} docstrings ({characters:,} characters, {train_tokens:,} tokens) of the Python packages in
`recipes/nano/corpus.txt` and of those in the environment that trained it, each text once. The standard library was left
out, also where packages repeat its docstrings.
**Trained:** {steps:,} steps of {batch_tokens:,} tokens, {tokens_seen:,} tokens ({epochs:.1f} epochs), Muon and AdamW,
{minutes:.0f} minutes on {device}; rows of {row} tokens,
the last {long_share:.0%} rows of {long_row}.
**Rebuild:** `make nano` (recipe: `recipes/nano/pretrain.toml`).

| perplexity a token | held-out docstrings | standard library |
|---|---|---|
| this model, rows of {row} | {heldout:.1f} | {unseen:.1f} |
| this model, rows of {long_row} | {heldout_long:.1f} | {unseen_long:.1f} |
| token frequencies alone | {heldout_unigram:.1f} | {unseen_unigram:.1f} |
| a uniform guess | {vocabulary} | {vocabulary} |

Greedy text, {greedy_tokens} tokens each:

{greedy}
## Limits

English, and mostly that of scientific Python. Its vectors carry a topic and little more; whatever bias docstrings have,
it has. Packages carry their own licences: most of those it read are under BSD, MIT or Apache, some under LGPL or GPL
(ase, gensim, MDAnalysis, paramiko). The weights are under this repository's licence.
"""


@dataclass(frozen=True)
class Run:
    """What the card tells of a run that the corpus and the recipe do not."""

    seconds: float
    device: str
    greedy_tokens: int = 40


def write(model: LlamaForCausalLM, corpus: Corpus, recipe: PretrainRecipe, run: Run, out: Path) -> Path:
    """Write the model folder; CheckpointError where something stands there already."""
    with new_folder(out) as folder:
        half = model.to("cpu", torch.bfloat16)
        half.save_pretrained(folder)
        # half the size to ship, and read in float32: many processors take 16 bits four times slower
        read = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        (folder / "config.json").write_text(json.dumps({**read, "dtype": "float32"}, indent=2) + "\n", encoding="utf-8")
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=corpus.tokenizer,
            bos_token=BOS,
            eos_token=EOS,
            pad_token=PAD,
            model_max_length=recipe.model.positions,
            clean_up_tokenization_spaces=False,
        )
        tokenizer.save_pretrained(folder)
        card = CARD.format(**_figures(half, tokenizer, corpus, recipe, run))
        (folder / "README.md").write_text(card, encoding="utf-8")
    return out


def _figures(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    corpus: Corpus,
    recipe: PretrainRecipe,
    run: Run,
) -> dict[str, object]:
    plan, shape = recipe.training, recipe.model
    exact = model.float()  # figures of the stored weights, computed without rounding on the way
    parameters = sum(parameter.numel() for parameter in exact.parameters())
    seen = plan.steps * plan.batch_tokens
    figures: dict[str, object] = {
        **vars(shape),
        **vars(plan),
        "vocabulary": recipe.data.vocabulary,
        "parameters": parameters,
        "megabytes": parameters * 2 / 1e6,
        "documents": corpus.documents,
        "characters": corpus.characters,
        "train_tokens": len(corpus.train),
        "steps": plan.steps,
        "tokens_seen": seen,
        "epochs": seen / len(corpus.train),
        "minutes": run.seconds / 60,
        "device": run.device,
        "greedy_tokens": run.greedy_tokens,
        "greedy": "".join(f"```\n{_greedy(exact, tokenizer, text, run.greedy_tokens)}\n```\n" for text in OPENINGS),
    }
    for name, ids in (("heldout", corpus.heldout), ("unseen", corpus.unseen)):
        figures[name] = perplexity(exact, ids, row=plan.row)
        figures[f"{name}_long"] = perplexity(exact, ids, row=plan.long_row)
        figures[f"{name}_unigram"] = unigram_perplexity(corpus.train, ids, recipe.data.vocabulary)
    return figures


@torch.inference_mode()
def _greedy(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, opening: str, count: int) -> str:
    ids = [tokenizer.bos_token_id, *tokenizer(opening, add_special_tokens=False)["input_ids"]]
    out = model.generate(
        torch.tensor([ids]), max_new_tokens=count, do_sample=False, pad_token_id=tokenizer.pad_token_id
    )
    return str(tokenizer.decode(out[0], skip_special_tokens=True)).strip()
