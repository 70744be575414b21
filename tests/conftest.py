"""Tiny random models of real architectures and two kinds of tokenizer, made here: no network, no downloads."""

from __future__ import annotations

import gc
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import warm_process

if TYPE_CHECKING:  # torch and the others are imported where they are used: what deals the tests out needs none of them
    import numpy as np
    from sentence_transformers import SentenceTransformer
    from transformers import PreTrainedTokenizerFast

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,  # wide enough that unlike texts are told apart
}
ARCHITECTURES = (
    *("llama", "qwen2", "qwen3", "mistral", "gemma2", "gemma3", "phi3", "smollm3", "olmo2", "olmo3"),
    *("phi", "gpt_neox", "gptj", "mixtral", "stablelm"),
)
MODEL_TYPES = {name: name for name in ARCHITECTURES} | {"gemma3": "gemma3_text"}
OWN_HEAD_WIDTH = ("stablelm", "phi", "gpt_neox", "gptj")
"""Architectures whose heads share the width evenly."""


def train_tokenizer(kind: str, *, bos: bool = True) -> PreTrainedTokenizerFast:
    """A byte-level or a Metaspace BPE; without BOS it is shaped like Qwen's, with added tokens that are no specials."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    from antiphon.model.parity import unlike_texts

    specials = ["<unk>", "<s>", "</s>", "<pad>"]
    backend = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=kind != "byte-level"))
    if kind == "byte-level":
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        # merges that stay within a word and apart from punctuation, as sentencepiece makes them
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Metaspace(prepend_scheme="first"), pre_tokenizers.Punctuation()]
        )
        backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
        alphabet = []
    bytes_of = [f"<0x{value:02X}>" for value in range(256)] if kind != "byte-level" else []
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=specials + bytes_of, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(unlike_texts() * 2, trainer)
    if kind == "metaspace":
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    elif kind == "legacy":  # the first Llamas: prefix and spaces as normalizers
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        backend.pre_tokenizer = None
    if bos:
        backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>" if bos else None, eos_token="</s>", unk_token="<unk>"
    )
    if not bos:
        tokenizer.add_tokens(["<tool_call>", "<|fim|>"])
    return tokenizer


def make_base(folder: Path, architecture: str = "llama", tokenizer: str = "byte-level", **options: object) -> Path:
    """Write a tiny random causal LM with a tokenizer, as a hub repository would hold it."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(7)
    words = train_tokenizer(tokenizer, bos=bool(options.pop("bos", True)))
    settings = {
        **SIZES,
        "vocab_size": len(words),
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": None,
        **options,
    }
    if architecture in OWN_HEAD_WIDTH:
        settings.pop("head_dim")
    if architecture == "gptj":
        settings["rotary_dim"] = 4
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(MODEL_TYPES[architecture], **settings))
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


FAULT = "is supported, so this is a fault"
"""What is said where something faster is off for a model that is supported."""


@pytest.fixture(autouse=True)
def _fast_paths_are_on(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail a test in which a fast path was off for a supported model, unless it is marked `falls_back`."""
    monkeypatch.setattr(sys, "warnoptions", ["default"])  # else a command run in the process silences libraries
    faults: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: faults.append(record.getMessage())  # type: ignore[method-assign]
    ours = logging.getLogger("antiphon")
    ours.addHandler(handler)
    yield
    ours.removeHandler(handler)
    if request.node.get_closest_marker("falls_back") is None:
        assert not [message for message in faults if FAULT in message]


LONGEST_FIRST = ("test_docs", "test_demo", "test_serving_schema", "test_encoding_compile", "test_exporting_onnx")
"""Files of few tests that take long: where one began last, one worker would run for minutes beside idle ones."""


def pytest_configure(config: pytest.Config) -> None:
    """Let the order below stand: pytest-xdist would begin with the files of most tests, wherever it is run from."""
    config.option.loadscopereorder = False
    gc.disable()  # until all is imported: nothing of that is garbage


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let torch take one thread here, where the tests run, and begin with the files that take longest."""
    import torch

    torch.set_num_threads(1)  # tiny models gain nothing from a second and lose much where cores are shared
    gc.enable()
    gc.freeze()  # a training run collects garbage several times: among all that is imported that takes half a second
    items.sort(key=lambda item: item.path.stem not in LONGEST_FIRST)


@pytest.fixture
def plain_processor(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the processor have nothing that our C code is written for, and forget what was asked before."""
    from antiphon.encoding.kernels.native import library

    monkeypatch.setattr(library, "has", lambda feature: False)
    library._reason.cache_clear()
    yield
    library._reason.cache_clear()


@pytest.fixture
def set_threads() -> Iterator[Callable[[int], None]]:
    """Give what sets torch's threads, for one test."""
    import torch

    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """Skip, with the reason, what fails because the installed transformers refuses the installed peft.

    Where the pair fits, `lora_unavailable` is None and nothing is touched.
    """
    report = yield
    if not report.failed:
        return report
    from antiphon.compat import lora_unavailable

    if (obstacle := lora_unavailable()) is not None:
        signs = ("LoRA cannot be attached: transformers", "The version of PEFT you are using is not compatible")
        if any(sign in str(report.longrepr) for sign in signs):
            report.outcome, report.longrepr = "skipped", (str(item.path), 0, f"Skipped: {obstacle}")
    return report


def vectors(model: SentenceTransformer, texts: list[str], **given_: object) -> np.ndarray:
    """What a model's own `encode` makes of texts, (N, D) in float32: the judge of every faster way."""
    import numpy as np

    return np.asarray(model.encode(texts, show_progress_bar=False, **given_), dtype=np.float32)


@pytest.fixture(scope="session")
def programs() -> Iterator[Path]:
    """A folder with an `antiphon` and a `python` whose processes begin with everything imported."""
    with TemporaryDirectory(prefix="antiphon-") as folder:  # a socket's path may have 107 bytes, pytest's are longer
        place, server = warm_process.commands(Path(folder))
        yield place
        server.kill()
        server.wait()


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run the command line here; returns exit code, standard output and standard error."""
    from antiphon.cli import main

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


@pytest.fixture(scope="module")
def warm_checks(programs: Path) -> Iterator[None]:
    """Exports are checked in processes that begin with everything imported: there are some forty of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("antiphon.exporting.verified.PYTHON", str(programs / "python"))
        yield


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Ray on two cores, for tests that need it."""
    import ray

    from antiphon.corpus.ray_cluster import ENVIRONMENT

    os.environ.update(ENVIRONMENT)
    ray.init("local", num_cpus=2, object_store_memory=100_000_000, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Skip a test where there is no C++ compiler; what is built lies in the test's folder."""
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        pytest.skip("there is no C++ compiler")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    from torch._inductor import config

    # not by monkeypatch: after other tests of a process torch says that there is no such setting until one is made
    before = getattr(config.cpp, "vec_isa_ok", None)
    if shutil.which("g++") and _knows_every_processor():
        config.cpp.vec_isa_ok = True
    yield
    config.cpp.vec_isa_ok = before


def _knows_every_processor() -> bool:
    """Whether the compiler takes the flags of new processors: torch tries them one by one, for ten seconds."""
    flags = ("-mavx512vnni", "-mavx512bf16", "-mavx512fp16", "-mamx-tile", "-mamx-bf16", "-mamx-int8")
    tried = subprocess.run(["g++", *flags, "-fsyntax-only", "-x", "c++", os.devnull], capture_output=True, check=False)
    return tried.returncode == 0


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Llama with a byte-level tokenizer and an untied head."""
    return make_base(tmp_path_factory.mktemp("bases") / "llama")


@pytest.fixture(scope="session")
def metaspace_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a sentencepiece-style tokenizer."""
    return make_base(tmp_path_factory.mktemp("bases") / "metaspace", tokenizer="metaspace")


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A base of every architecture that is supported."""
    root = tmp_path_factory.mktemp("bases")
    return {name: make_base(root / name, name) for name in ("llama", "qwen2", "qwen3", "mistral", "gemma3")}
