"""Folders that cannot become an embedder: each fault is one sentence, in Python and on the command line."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import make_base, train_tokenizer
from tokenizers import processors
from transformers import AddedToken, AutoTokenizer, T5Config, T5ForConditionalGeneration

import antiphon
from antiphon.cli import main
from antiphon.errors import ModelError, foreign
from antiphon.model.opening import open_model

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n".encode()
Spoil = Callable[[Path], object]


def write(name: str, content: bytes) -> Spoil:
    return lambda folder: (folder / name).write_bytes(content)


def edit(name: str, **changes: object) -> Spoil:
    return lambda folder: (folder / name).write_text(json.dumps({**json.loads((folder / name).read_text()), **changes}))


def cut(name: str) -> Spoil:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:5000])


def instead(name: str, other: str, content: bytes) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / name).unlink()
        (folder / other).write_bytes(content)

    return spoil


def special_beyond(kind: str) -> Spoil:
    """Name a special token that the embeddings have no row for."""

    def spoil(folder: Path) -> None:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        tokenizer.add_special_tokens({f"{kind}_token": "<beyond>"})
        if kind == "bos":
            tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
                single="<beyond> $A", special_tokens=[("<beyond>", len(tokenizer) - 1)]
            )
        tokenizer.save_pretrained(folder)

    return spoil


def t5(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    config = T5Config(vocab_size=800, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    T5ForConditionalGeneration(config).save_pretrained(folder)


def only_a_config(folder: Path) -> None:
    for name in ("model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()


BROKEN: dict[str, tuple[Spoil, str]] = {
    "config gone": (lambda folder: (folder / "config.json").unlink(), r"holds no config\.json"),
    "config empty": (write("config.json", b""), r"config\.json is empty; download it again"),
    "config a pointer": (write("config.json", POINTER), r"config\.json is a pointer of Git LFS"),
    "config no JSON": (write("config.json", b"{"), r"config\.json cannot be read: .*no JSON|cut short or none"),
    "config no text": (write("config.json", b"\xff\xfe"), r"config\.json cannot be read"),
    "config a list": (write("config.json", b"[1]"), r"holds a list where a JSON object is wanted"),
    "config null": (write("config.json", b"null"), r"where a JSON object is wanted"),
    "config {}": (write("config.json", b"{}"), r"Should have a `model_type` key"),
    "family unknown": (edit("config.json", model_type="nope"), r"does not recognize this architecture"),
    "family of the folder's code": (
        edit("config.json", model_type="nope", auto_map={"AutoConfig": "code.Config"}),
        r"asks for code of its own \(code\.Config\)",
    ),
    "width a word": (edit("config.json", hidden_size="wide"), r"expected int, got str"),
    "no heads": (edit("config.json", num_attention_heads=0), r"cannot be read: ZeroDivisionError"),
    "activation unknown": (edit("config.json", hidden_act="nope"), r"cannot be loaded: there is no 'nope'"),
    "dtype unknown": (edit("config.json", dtype="nope"), r"no attribute 'nope'"),
    "kernel missing": (edit("config.json", _attn_implementation="flash_attention_2"), r"install what it names"),
    "quantised": (edit("config.json", quantization_config={"quant_method": "gptq", "bits": 4}), r"cannot be loaded"),
    "weights gone": (lambda folder: (folder / "model.safetensors").unlink(), r"no file named model\.safetensors"),
    "weights empty": (write("model.safetensors", b""), r"model\.safetensors is empty"),
    "weights a pointer": (write("model.safetensors", POINTER), r"model\.safetensors is a pointer of Git LFS"),
    "weights cut": (cut("model.safetensors"), r"cut short or none: download them again"),
    "weights no tensors": (write("model.safetensors", b"x" * 99), r"cut short or none: download them again"),
    "weights no pickle": (
        instead("model.safetensors", "pytorch_model.bin", b"x" * 99),
        r"pytorch_model\.bin is cut short or holds more than weights",
    ),
    "weights an index of nothing": (
        instead(
            "model.safetensors",
            "model.safetensors.index.json",
            b'{"metadata": {}, "weight_map": {"a": "b.safetensors"}}',
        ),
        r"b\.safetensors",
    ),
    "tokenizer gone": (lambda folder: (folder / "tokenizer.json").unlink(), r"has no tokenizer \(tokenizer\.json"),
    "tokenizer empty": (write("tokenizer.json", b""), r"tokenizer\.json is empty"),
    "tokenizer a pointer": (write("tokenizer.json", POINTER), r"tokenizer\.json is a pointer of Git LFS"),
    "tokenizer cut": (cut("tokenizer.json"), r"The tokenizer of .* cannot be read: .*download it again"),
    "tokenizer {}": (write("tokenizer.json", b"{}"), r"The tokenizer of .* cannot be read"),
    "tokenizer a list": (write("tokenizer.json", b"[]"), r"The tokenizer of .* cannot be read"),
    "tokenizer's model unknown": (
        edit("tokenizer.json", model={"type": "Nope"}),
        r"The tokenizer of .* cannot be read: data did not match",
    ),
    "tokenizer's settings a list": (write("tokenizer_config.json", b"[]"), r"tokenizer_config\.json holds a list"),
    "EOS unset": (edit("tokenizer_config.json", eos_token=None), r"names no EOS token"),
    "EOS beyond": (special_beyond("eos"), r"EOS of .* is '<beyond>' \(id 700\), .* have 700 rows"),
    "BOS beyond": (special_beyond("bos"), r"BOS of .* is '<beyond>' \(id 700\), .* have 700 rows"),
    "EOS in no vocabulary": (edit("tokenizer_config.json", eos_token="<nope>"), r"EOS of .* is '<nope>'"),
    "tokenizer of another model": (edit("config.json", vocab_size=300), r"has ids up to 699 .* have 300 rows"),
    "tokens without a package": (
        instead("tokenizer.json", "tekken.json", b'{"config": {}, "vocab": []}'),
        r"tekken\.json needs mistral-common, which is not installed: pip|The tokenizer of .* cannot be read",
    ),
    "an encoder and a decoder": (t5, r"t5 is no causal language model"),
    "only a config": (only_a_config, r"has no tokenizer"),
    "only an adapter": (instead("config.json", "adapter_config.json", b"{}"), r"a LoRA adapter only; merge it"),
    "only GGUF": (instead("config.json", "model.gguf", b"GGUF"), r"model\.gguf is cut off or broken|needs gguf"),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return make_base(tmp_path_factory.mktemp("sound") / "base", max_position_embeddings=2048)


def one_sentence(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that must end with 2, nothing on standard output and one line of error; return that line."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    out, err = capsys.readouterr()
    assert (ended.value.code, out) == (2, "")
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, err
    assert "Traceback" not in err
    return " ".join(err[err.index("error: ") :].split())


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_base_is_one_sentence(name, sound, tmp_path, capsys):
    spoil, words = BROKEN[name]
    folder = tmp_path / "base"
    shutil.copytree(sound, folder)
    spoil(folder)
    before = sorted((path.name, path.stat().st_mtime_ns) for path in folder.iterdir())
    for read in (antiphon.build, open_model):
        with pytest.raises(ModelError, match=words) as caught:
            read(str(folder))
        assert str(caught.value).endswith(".")
        assert "\n" not in str(caught.value)
    assert str(caught.value).split()[0] in one_sentence(["show", str(folder), "a text"], capsys)
    assert sorted((path.name, path.stat().st_mtime_ns) for path in folder.iterdir()) == before


SAVED: dict[str, tuple[Spoil, str]] = {
    "weights a pointer": (write("model.safetensors", POINTER), r"is a pointer of Git LFS"),
    "weights cut": (cut("model.safetensors"), r"cannot be loaded: .*cut short or none"),
    "tokenizer cut": (cut("tokenizer.json"), r"cannot be loaded"),
    "config null": (write("config.json", b"null"), r"cannot be loaded"),
    "pooling empty": (write("1_SpanPooling/config.json", b""), r"config\.json is empty"),
    "pooling a list": (write("1_SpanPooling/config.json", b"[]"), r"cannot be loaded"),
    "modules null": (write("modules.json", b"null"), r"is not a list of modules"),
    "template a number": (edit("sentence_bert_config.json", template=3), r"is 3, which is none of antiphon's"),
}


@pytest.mark.parametrize("name", SAVED)
def test_a_broken_saved_folder_is_one_sentence(name, sound, tmp_path, capsys):
    spoil, words = SAVED[name]
    folder = antiphon.save(antiphon.build(sound, max_tokens=128), tmp_path / "saved")
    spoil(folder)
    with pytest.raises(ModelError, match=words):
        antiphon.load(folder)
    one_sentence(["show", str(folder), "a text"], capsys)


def test_a_file_is_no_folder(sound):
    with pytest.raises(ModelError, match=r"is a file; name the folder"):
        antiphon.build(sound / "config.json")


def test_what_a_text_never_becomes_needs_no_row(tmp_path):
    base = make_base(tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens(["hello", "<tool>"])
    tokenizer.add_special_tokens({"pad_token": "<pad-beyond>"})
    tokenizer.save_pretrained(base)
    model = antiphon.build(base, max_tokens=128)
    assert len(model.encode(["hello <tool>", "hello <pad-beyond> there"])) == 2
    with pytest.raises(ModelError, match=r"'<tool> :', which holds a token beyond the 700 rows"):
        antiphon.build(base, "<tool> : {text}", max_tokens=128)


def test_our_own_errors_pass_the_edge_and_others_are_told():
    with pytest.raises(ModelError, match=r"^ours$"), foreign("Reading"):
        raise ModelError("ours")
    for error, words in (
        (KeyError("gelu2"), r"Reading: there is no 'gelu2'\."),
        (AttributeError("no x"), r"Reading: AttributeError, no x\."),
        (MemoryError(), r"Reading: MemoryError, no message; take dtype='bfloat16'"),
        (RuntimeError("first.\nsecond"), r"Reading: first\.$"),
        (ModuleNotFoundError("No module named 'x'"), r"No module named 'x'; install what it names"),
        (ValueError("word " * 200), r"word \.\.\.\.$"),
    ):
        with pytest.raises(ModelError, match=words), foreign("Reading"):
            raise error
    with pytest.raises(KeyboardInterrupt), foreign("Reading"):
        raise KeyboardInterrupt


def test_a_sentencepiece_file_is_read_as_sentencepiece_reads_it_or_refused(sound, tmp_path):
    """With the package the ids are compared with its own; without it the sentence names it."""
    folder = tmp_path / "base"
    shutil.copytree(sound, folder)
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.model").write_bytes(b"\n\x0e\n\x05<unk>\x15\x00\x00\x00\x00\x18\x02")
    with pytest.raises(ModelError, match=r"tokenizer\.model (needs sentencepiece, which is not installed|cannot be)"):
        antiphon.build(folder)


@pytest.mark.skipif(find_spec("mistral_common") is not None, reason="mistral-common takes no vocabulary this small")
def test_a_tekken_file_is_read_without_a_package_where_it_names_its_special_tokens(tmp_path):
    base = make_base(tmp_path / "base", "mistral")
    (base / "tokenizer.json").unlink()
    (base / "tokenizer_config.json").unlink()
    tokens = [bytes([value]) for value in range(256)] + [b"th", b"the", b" the"]
    specials = ["<unk>", "<s>", "</s>", "<pad>"]
    content = {
        "config": {"pattern": r"\s?\w+|.", "default_vocab_size": 263, "default_num_special_tokens": 4},
        "vocab": [
            {"rank": rank, "token_bytes": base64.b64encode(token).decode(), "token_str": None}
            for rank, token in enumerate(tokens)
        ],
        "special_tokens": [{"rank": rank, "token_str": name, "is_control": True} for rank, name in enumerate(specials)],
    }
    (base / "tekken.json").write_text(json.dumps(content))
    model = antiphon.build(base, "{text}", max_tokens=64)
    ids = model.preprocess(["the cat"])["input_ids"][0].tolist()
    assert ids == [1, tokens.index(b"the") + 4, *(byte + 4 for byte in b" cat"), 2]
    again = antiphon.load(antiphon.save(model, tmp_path / "saved"))
    assert again.preprocess(["the cat"])["input_ids"][0].tolist() == ids


def test_the_fallback_from_a_tokenizer_that_cannot_hold_a_template_names_the_tokens(tmp_path, caplog):
    """Gemma's newline tokens are added with `normalized: false`: its normalizer starts anew behind each."""
    base = make_base(tmp_path / "base", "gemma3", "legacy", vocab_size=701)
    tokenizer = train_tokenizer("legacy")
    tokenizer.add_tokens([AddedToken("\n", normalized=False)])
    tokenizer.save_pretrained(base)
    model = antiphon.build(base, "echo-rewrite", pooling="last", max_tokens=128)
    said = " ".join(record.getMessage() for record in caplog.records if record.name.startswith("antiphon"))
    assert type(model[0]).__name__ == "TemplateInput"
    assert "it would make [" in said
    assert "antiphon's own modules instead of stock ones, with the same vectors" in said
