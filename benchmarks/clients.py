"""Real clients against a running `antiphon serve nano`: which work, by the vectors and orders that they get.

In an environment of their own, so that the project does not depend on them:

    python -m venv clients && clients/bin/pip install openai langchain-openai langchain-cohere cohere \
        litellm voyageai huggingface_hub haystack-ai llama-index-embeddings-openai-like \
        llama-index-embeddings-text-embeddings-inference llama-index-embeddings-jinaai \
        llama-index-postprocessor-cohere-rerank numpy
    antiphon serve nano --port 8765 &
    clients/bin/python benchmarks/clients.py http://127.0.0.1:8765
"""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np

os.environ.update(LITELLM_LOCAL_MODEL_COST_MAP="True", HAYSTACK_TELEMETRY_ENABLED="False", DO_NOT_TRACK="1")

URL = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8765"
TEXTS = ["Split a string into words.", "Open a compressed file.", "Sort a list of numbers."]
QUERY = "break a text"
NEAR = 1e-3
"""Largest difference of a component between a client's vector and that of a bare request."""


def asked(path: str, **body: Any) -> Any:
    request = urllib.request.Request(URL + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def wanted(side: str | None, texts: list[str] = TEXTS) -> Any:
    return np.array([row["embedding"] for row in asked("/v1/embeddings", input=texts, input_type=side)["data"]])


def same(found: Any, side: str | None, texts: list[str] = TEXTS) -> None:
    difference = np.abs(np.array(found) - wanted(side, texts)).max()
    assert difference < NEAR, f"vectors differ by {difference:.3f}"


def in_order(found: list[int]) -> None:
    order = [row["index"] for row in asked("/rerank", query=QUERY, documents=TEXTS)["results"]]
    assert found == order[: len(found)], f"order {found}, not {order}"


def openai() -> None:
    from openai import OpenAI

    client = OpenAI(base_url=f"{URL}/v1", api_key="unused")
    for side in ("query", "document"):
        answer = client.embeddings.create(model="nano", input=TEXTS, extra_body={"input_type": side})
        same([row.embedding for row in answer.data], side)


def openai_without_v1() -> None:
    from openai import OpenAI

    answer = OpenAI(base_url=f"{URL}/", api_key="unused").embeddings.create(model="openai/nano", input=TEXTS)
    same([row.embedding for row in answer.data], None)


def langchain_openai() -> None:
    from langchain_openai import OpenAIEmbeddings

    embeddings = OpenAIEmbeddings(
        model="nano", base_url=f"{URL}/v1", api_key="unused", check_embedding_ctx_length=False
    )
    same(embeddings.embed_documents(TEXTS), None)


def langchain_cohere() -> None:
    import cohere
    from langchain_cohere import CohereEmbeddings

    clients = {"client": cohere.Client("unused", base_url=URL), "async_client": cohere.AsyncClient("x", base_url=URL)}
    embeddings = CohereEmbeddings(model="nano", cohere_api_key="unused", base_url=URL, **clients)
    same(embeddings.embed_documents(TEXTS), "document")
    same([embeddings.embed_query(QUERY)], "query", [QUERY])


def langchain_cohere_rerank() -> None:
    from langchain_cohere import CohereRerank
    from langchain_core.documents import Document

    reranker = CohereRerank(model="nano", cohere_api_key="unused", base_url=URL, top_n=2)
    found = reranker.compress_documents([Document(text) for text in TEXTS], QUERY)
    in_order([TEXTS.index(document.page_content) for document in found])


def cohere_embed(kind: str) -> None:
    import cohere

    client = getattr(cohere, kind)("unused", base_url=URL)
    for asked_as, side in (("search_query", "query"), ("search_document", "document")):
        answer = client.embed(model="nano", texts=TEXTS, input_type=asked_as, embedding_types=["float"])
        same(answer.embeddings.float_, side)


def cohere_embed_bare() -> None:
    import cohere

    answer = cohere.Client("unused", base_url=URL).embed(model="nano", texts=TEXTS, input_type="search_query")
    same(answer.embeddings, "query")


def cohere_rerank(kind: str) -> None:
    import cohere

    answer = getattr(cohere, kind)("unused", base_url=URL).rerank(model="nano", query=QUERY, documents=TEXTS, top_n=2)
    in_order([row.index for row in answer.results])


def litellm_embedding(provider: str) -> None:
    import litellm

    bases = {"openai": f"{URL}/v1", "hosted_vllm": f"{URL}/v1", "litellm_proxy": f"{URL}/v1"}
    bases |= {"cohere": f"{URL}/v2/embed", "jina_ai": f"{URL}/v1", "voyage": f"{URL}/v1/embeddings"}
    bases |= {"huggingface": URL}
    more = {"huggingface": {"input_type": "feature-extraction"}}.get(provider, {})
    answer = litellm.embedding(
        model=f"{provider}/nano", input=TEXTS, api_base=bases[provider], api_key="unused", **more
    )
    side = {"cohere": "document"}.get(provider)
    same([row["embedding"] for row in answer.data], side)


def litellm_rerank(provider: str) -> None:
    import litellm

    bases = {"cohere": URL, "hosted_vllm": URL, "jina_ai": URL, "huggingface": URL, "voyage": f"{URL}/v1/rerank"}
    answer = litellm.rerank(
        model=f"{provider}/nano", query=QUERY, documents=TEXTS, top_n=2, api_base=bases[provider], api_key="unused"
    )
    in_order([row["index"] for row in answer.results])


def voyage() -> None:
    import voyageai

    client = voyageai.Client(api_key="unused", base_url=f"{URL}/v1")
    for side in ("query", "document"):
        same(client.embed(TEXTS, model="nano", input_type=side).embeddings, side)


def voyage_rerank() -> None:
    import voyageai

    answer = voyageai.Client(api_key="unused", base_url=f"{URL}/v1").rerank(QUERY, TEXTS, model="nano", top_k=2)
    in_order([row.index for row in answer.results])


def hugging_face() -> None:
    from huggingface_hub import InferenceClient

    for address in (URL, f"{URL}/embed"):
        client = InferenceClient(model=address, token="unused")
        same([np.asarray(client.feature_extraction(text))[0] for text in TEXTS], None)


def haystack() -> None:
    from haystack.components.embedders import OpenAITextEmbedder
    from haystack.utils import Secret

    embedder = OpenAITextEmbedder(api_key=Secret.from_token("unused"), model="nano", api_base_url=f"{URL}/v1")
    same([embedder.run(text=QUERY)["embedding"]], None, [QUERY])


def llama_index_openai_like() -> None:
    from llama_index.embeddings.openai_like import OpenAILikeEmbedding

    embedding = OpenAILikeEmbedding(
        model_name="nano",
        api_base=f"{URL}/v1",
        api_key="unused",
        additional_kwargs={"extra_body": {"input_type": "document"}},
    )
    same(embedding.get_text_embedding_batch(TEXTS), "document")


def llama_index_tei() -> None:
    from llama_index.embeddings.text_embeddings_inference import TextEmbeddingsInference

    embedding = TextEmbeddingsInference(model_name="nano", base_url=URL, text_instruction="", query_instruction="")
    same([[float(one) for one in row] for row in embedding.get_text_embedding_batch(TEXTS)], None)


def llama_index_jina() -> None:
    from llama_index.embeddings.jinaai import JinaEmbedding

    embedding = JinaEmbedding(api_key="unused", model="nano", base_url=URL, task="retrieval.passage")
    same(embedding.get_text_embedding_batch(TEXTS), "document")


def llama_index_cohere_rerank() -> None:
    from llama_index.core.schema import NodeWithScore, TextNode
    from llama_index.postprocessor.cohere_rerank import CohereRerank

    nodes = [NodeWithScore(node=TextNode(text=text)) for text in TEXTS]
    reranker = CohereRerank(model="nano", api_key="unused", base_url=URL, top_n=2)
    found = reranker.postprocess_nodes(nodes, query_str=QUERY)
    in_order([TEXTS.index(node.node.get_content()) for node in found])


CLIENTS: dict[str, tuple[str, Callable[[], None]]] = {
    "openai": ("openai", openai),
    "openai, without /v1": ("openai", openai_without_v1),
    "LangChain OpenAIEmbeddings": ("langchain-openai", langchain_openai),
    "LangChain CohereEmbeddings": ("langchain-cohere", langchain_cohere),
    "LangChain CohereRerank": ("langchain-cohere", langchain_cohere_rerank),
    "cohere Client.embed": ("cohere", lambda: cohere_embed("Client")),
    "cohere Client.embed, bare": ("cohere", cohere_embed_bare),
    "cohere ClientV2.embed": ("cohere", lambda: cohere_embed("ClientV2")),
    "cohere Client.rerank": ("cohere", lambda: cohere_rerank("Client")),
    "cohere ClientV2.rerank": ("cohere", lambda: cohere_rerank("ClientV2")),
    **{
        f"litellm embedding {name}": ("litellm", lambda name=name: litellm_embedding(name))
        for name in ("openai", "hosted_vllm", "litellm_proxy", "cohere", "jina_ai", "voyage", "huggingface")
    },
    **{
        f"litellm rerank {name}": ("litellm", lambda name=name: litellm_rerank(name))
        for name in ("cohere", "hosted_vllm", "jina_ai", "huggingface", "voyage")
    },
    "voyageai embed": ("voyageai", voyage),
    "voyageai rerank": ("voyageai", voyage_rerank),
    "huggingface_hub InferenceClient": ("huggingface_hub", hugging_face),
    "Haystack OpenAITextEmbedder": ("haystack-ai", haystack),
    "LlamaIndex OpenAILikeEmbedding": ("llama-index-embeddings-openai-like", llama_index_openai_like),
    "LlamaIndex TextEmbeddingsInference": ("llama-index-embeddings-text-embeddings-inference", llama_index_tei),
    "LlamaIndex JinaEmbedding": ("llama-index-embeddings-jinaai", llama_index_jina),
    "LlamaIndex CohereRerank": ("llama-index-postprocessor-cohere-rerank", llama_index_cohere_rerank),
}


def main() -> None:
    failed = 0
    for name, (package, run) in CLIENTS.items():
        try:
            run()
            outcome = "works"
        except Exception as error:
            failed += 1
            outcome = f"fails: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        print(f"{name} ({package} {version(package)}): {outcome}", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
