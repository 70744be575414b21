"""What to change where an endpoint is wrong, in the words of the engine that it runs on."""

from __future__ import annotations

from collections.abc import Mapping

GENERAL: Mapping[str, str] = {
    "numbers": "load the model in bfloat16 or float32; float16 overflows in some",
    "alike": "pool the last token, for a causal model's first one hears nothing; or take another template, or train it",
    "normalisation": "add a Normalize module to modules.json, or divide by the length yourself",
    "repeated": "look for dropout that is on, or for several models behind one address",
    "companion": "pad on the side that the tokenizer names and mask it; till then ask for one text at a time",
    "dimensions": "the folder's Dense module is missing there, or it serves another model",
    "EOS": "write EOS into the post-processor of tokenizer.json: antiphon export --to portable",
    "BOS": "write BOS into the post-processor of tokenizer.json once, and do not let the engine add another",
    "prompt": "send the prompt with every text, or write it into the tokenizer: antiphon export --freeze-prompts",
    "pooling": "set the pooling of 1_Pooling/config.json",
    "dtype": "start the engine in the model's dtype",
    "truncation": "give the engine the length of the folder",
    "weights": "it serves other weights, another tokenizer or another template; export the model again and serve that",
}
ENGINES: Mapping[str, Mapping[str, str]] = {
    "vllm": {
        "pooling": """vllm serve --runner pooling --pooler-config '{"pooling_type": "LAST"}'""",
        "normalisation": """vllm serve --pooler-config '{"normalize": true}'""",
        "truncation": "vllm serve --max-model-len with the number in the folder's card, and no truncate_prompt_tokens",
        "dtype": "vllm serve --dtype float32 (or bfloat16)",
    },
    "llamacpp": {
        "pooling": "llama-server --embeddings --pooling last",
        "EOS": "llama-server: set tokenizer.ggml.add_eos_token in the GGUF, or send token ids",
        "BOS": "llama-server: set tokenizer.ggml.add_bos_token in the GGUF, or send token ids",
        "normalisation": "llama-server --embd-normalize 2",
        "truncation": "llama-server --ctx-size and --ubatch-size of at least the longest sequence",
    },
    "library": {"truncation": 'Ollama: "options": {"num_ctx": ...} of at least the longest sequence'},
    "infinity": {"pooling": "infinity reads 1_Pooling/config.json: serve the folder of antiphon export --to portable"},
}
"""By what `/v1/models` calls the owner."""


def remedy_of(topic: str, engine: str) -> str:
    """Return what to change for a topic, of two joined topics for the first."""
    first = topic.partition(" and ")[0]
    return ENGINES.get(engine, {}).get(first) or GENERAL.get(first, "")
