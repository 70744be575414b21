"""What to change where an endpoint is wrong, in the words of the engine that it runs on."""

from __future__ import annotations

from collections.abc import Mapping

GENERAL: Mapping[str, str] = {
    "numbers": "load the model in bfloat16 or float32; float16 overflows in some",
    "alike": "pool the last token, for a causal model's first one sees nothing; or take another template, or train it",
    "normalisation": "add a Normalize module to modules.json, or divide by the length yourself",
    "repeated": "look for dropout that is on, or for several models behind one address",
    "companion": "pad on the side that the tokenizer names and mask it; till then ask for one text at a time",
    "dimensions": "the folder's Dense module is missing there, or it serves another model",
    "EOS": "write EOS into the post-processor of tokenizer.json: antiphon export --to portable",
    "BOS": "write BOS into the post-processor of tokenizer.json once, and do not let the engine add another",
    "prompt": "send the prompt with every text, or write it into the tokenizer: antiphon export --freeze-prompts",
    "template": "serve a folder whose tokenizer.json says the template: antiphon export --to portable",
    "pooling": "set the pooling of 1_Pooling/config.json",
    "Dense": "serve a folder whose modules.json names the Dense by its stock class: antiphon export --to portable",
    "letter case": "set do_lower_case to false in sentence_bert_config.json, and take Lowercase out of tokenizer.json",
    "dtype": "start the engine in the model's dtype, with weights that are not quantised",
    "truncation": "give the engine the length of the folder, and let it cut texts and not sequences",
    "tokenizer": "copy tokenizer.json and tokenizer_config.json there, or send token ids: antiphon tokens",
    "weights": "it serves other weights; export the model again and serve that",
}
_CHAT_OFF = "delete chat_template.jinja from the folder, and chat_template from tokenizer_config.json"
_BY_IDS = "send token ids: antiphon serve MODEL --upstream URL does it for clients"
_NUM_CTX = 'Ollama: "options": {"num_ctx": ...} of at least the longest sequence, and "truncate": false'
ENGINES: Mapping[str, Mapping[str, str]] = {
    "vllm": {
        "pooling": """vllm serve --runner pooling --pooler-config '{"pooling_type": "LAST"}'""",
        "normalisation": """vllm serve --pooler-config '{"normalize": true}'""",
        "truncation": "vllm serve --max-model-len with the number in the folder's card, and no truncate_prompt_tokens",
        "dtype": "vllm serve --dtype float32 (or bfloat16), without --quantization",
        "template": f"{_CHAT_OFF}; serve what antiphon export --to portable writes",
        "Dense": "vLLM passes over modules that are not sentence-transformers' own: antiphon export --to portable",
        "tokenizer": "vllm serve --tokenizer FOLDER with the folder of antiphon export --to portable",
        "prompt": "vLLM's /v1/embeddings says no prompt: send it with every text, or antiphon export --freeze-prompts",
    },
    "llamacpp": {
        "pooling": "llama-server --embeddings --pooling last",
        "EOS": "llama-server: set tokenizer.ggml.add_eos_token in the GGUF, or send token ids",
        "BOS": "llama-server: set tokenizer.ggml.add_bos_token in the GGUF, or send token ids",
        "normalisation": "llama-server --embd-normalize 2",
        "truncation": "llama-server --ctx-size and --ubatch-size of at least the longest sequence",
        "template": f"a GGUF file holds no template; {_BY_IDS}",
        "tokenizer": f"a GGUF file holds no template; {_BY_IDS}",
        "dtype": "serve a GGUF in f16 or bf16: antiphon export --to gguf",
        "Dense": "a GGUF file holds no Dense: serve the folder of antiphon export --to portable with vLLM",
    },
    "ollama": {
        "truncation": _NUM_CTX,
        "template": "Ollama takes strings only, and a GGUF file holds no template: use llama-server with token ids",
        "tokenizer": "Ollama takes strings only, and a GGUF file holds no template: use llama-server with token ids",
        "dtype": "ollama create from a GGUF in f16, without --quantize",
        "EOS": "set tokenizer.ggml.add_eos_token in the GGUF, as antiphon export --to gguf does",
        "pooling": "set the pooling type in the GGUF (antiphon export --to gguf does) and create the model anew",
    },
    "infinity": {
        "pooling": "infinity reads 1_Pooling/config.json: serve the folder of antiphon export --to portable",
        "dtype": "infinity_emb v2 --dtype float32 --no-bettertransformer",
        "prompt": "infinity says no prompt: send it with every text, or antiphon export --freeze-prompts",
    },
    "tei": {
        "pooling": "text-embeddings-router --pooling last-token",
        "dtype": "text-embeddings-router --dtype float32",
        "prompt": "text-embeddings-router --default-prompt-name query, or --default-prompt with its words",
        "truncation": "text-embeddings-router --auto-truncate, with max_seq_length in sentence_bert_config.json",
        "normalisation": 'ask /embed with "normalize": true',
    },
    "antiphon": {
        "prompt": "antiphon serve: send input_type, prompt_name or instruction with the request, or serve --prompt",
        "dtype": "antiphon serve --dtype float32",
    },
}
"""By the engine's name in `dialects`."""


def remedy_of(topic: str, engine: str) -> str:
    """Return what to change for a topic, of two joined topics for the first.

    Example:
        >>> remedy_of("pooling and prompt", "tei")
        'text-embeddings-router --pooling last-token'
    """
    first = topic.partition(" and ")[0]
    return ENGINES.get(engine, {}).get(first) or GENERAL.get(first, "")
