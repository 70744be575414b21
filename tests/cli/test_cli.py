"""The command line: what it prints where, how it ends, and that asking for help waits for nothing."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling

import antiphon
from antiphon.cli import report
from antiphon.errors import ConfigError
from antiphon.model.description import describe
from antiphon.model.parity import unlike_texts

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
COMMANDS = ["show", "embed", "search", "parity", "demo"]


@pytest.fixture(scope="module")
def saved(tiny_base, tmp_path_factory):
    model = antiphon.build(tiny_base, "eol", pooling="last", max_tokens=128, dtype="float32", device="cpu")
    return antiphon.save(model, tmp_path_factory.mktemp("saved") / "eol")


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(text for text in unlike_texts() if text.strip()))
    return path


def process(programs: Path, *arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    command = [str(programs / "antiphon"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, **options)


def test_help_and_version_import_nothing_heavy():
    program = (
        "import sys; from antiphon.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: print(sorted({'torch', 'numpy', 'transformers', 'pyarrow', 'tokenizers',"
        " 'sentence_transformers'} & set(sys.modules)))"
    )
    for arguments in (["--help"], ["--version"], ["embed", "--help"], []):
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments], capture_output=True, text=True, env=ENVIRONMENT, check=True
        )
        assert done.stdout.splitlines()[-1] == "[]", done.stdout


def test_the_version_is_the_packages(run):
    assert run("--version") == (0, f"antiphon {antiphon.__version__}\n", "")


def test_a_shell_is_given_its_script_and_completes_commands_and_options(programs):
    named = {**ENVIRONMENT, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}  # or typer looks for the shell itself
    command = [str(programs / "antiphon"), "--show-completion", "bash"]
    shown = subprocess.run(command, capture_output=True, text=True, env=named, check=True)
    assert "_ANTIPHON_COMPLETE=complete_bash" in shown.stdout
    assert "complete -o default -F _antiphon_completion antiphon" in shown.stdout
    assert shown.stderr == ""
    for words, expected in (("antiphon emb", {"embed"}), ("antiphon search --where --mo", {"--model", "--mode"})):
        asked = {"_ANTIPHON_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        done = subprocess.run(command[:1], capture_output=True, text=True, env={**ENVIRONMENT, **asked}, check=True)
        assert set(done.stdout.split()) == expected


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_ends_in_examples(command, run):
    code, out, _ = run(command, "--help")
    assert code == 0
    assert f"antiphon {command}" in out[out.index("Examples:") :]


def test_show_marks_what_is_pooled_in_plain_text(tiny_base, run):
    code, out, err = run("show", tiny_base, "two words\n", "--max-tokens", "64", "--health")
    assert (code, err) == (0, "")
    assert "template   echo-rewrite (query side)" in out
    assert "mean over" in out
    assert "max_tokens 64 with one copy" in out
    assert "causal, sdpa" in out
    assert "needs antiphon to load" in out
    assert "unlike texts: median cosine" in out
    tokens = next(line for line in out.splitlines() if line.startswith("<s>"))
    pooled = "".join(re.findall(r"\[([^]]+)\]", tokens)).replace("⏎", "\n").replace("·", " ")
    assert pooled == " two words\n</s>"
    assert "\x1b" not in out


def test_show_takes_instructions_sides_and_attention(tiny_base, run):
    code, out, _ = run(
        "show",
        tiny_base,
        "cats",
        "--template",
        "echo",
        "--prompt",
        "Find it",
        "--bidirectional",
        "--pooling",
        "last",
        "--max-tokens",
        "128",
    )
    assert code == 0
    assert "prompt     'Find it'" in out
    assert "bidirectional, sdpa" in out
    assert len(re.findall(r"\[", out.split("\n\n")[1])) == 1
    code, out, _ = run("show", tiny_base, "cats", "--template", "echo", "--side", "document", "--max-tokens", "128")
    assert "template   echo (document side)" in out
    last = ("--pooling", "last", "--max-tokens", "128")
    assert "stock sentence-transformers" in run("show", tiny_base, "x", "--template", "eol", *last)[1]


def test_describe_tells_when_a_text_is_cut(tiny_base):
    for template, pooling, end in (
        ("echo-rewrite", "mean", "</s>"),
        ("eol", "last", '"'),
        ("classical", "last", "</s>"),
    ):
        model = antiphon.build(tiny_base, template, pooling=pooling, max_tokens=64, dtype="float32", device="cpu")
        assert not describe(model, "a short text").cut
        long = describe(model, "a long text " * 100)
        assert long.cut
        assert long.tokens[-1].text == end
        assert long.tokens[-1].pooled
    with pytest.raises(ConfigError, match="no side 'both'"):
        describe(model, "a", side="both")


@pytest.mark.parametrize(("mode", "want"), [("lasttoken", [0, 0, 1]), ("cls", [1, 0, 0]), ("mean", [1, 1, 1])])
def test_describe_follows_the_pooling_of_any_stock_model(mode, want, tiny_base):
    module = Transformer(
        str(tiny_base),
        modality_config={"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
        module_output_name="token_embeddings",
    )
    module.tokenizer.pad_token = "</s>"
    model = SentenceTransformer(modules=[module, Pooling(32, pooling_mode=mode)], device="cpu")
    shown = describe(model, "a b")
    assert [int(token.pooled) for token in shown.tokens] == want
    assert shown.template == "none"
    assert shown.pooling == mode


def test_embed_then_search_the_folder(tiny_base, source, tmp_path, run):
    out = tmp_path / "vectors"
    shape = ("--max-tokens", "128", "--template", "classical-write")
    code, printed, err = run("embed", tiny_base, source, "--out", out, "--shard-size", "10", *shape)
    assert (code, printed) == (0, f"{out}\n")
    rows = len(source.read_text().splitlines())
    assert f"embedding: {rows} of {rows}" in err
    assert "Loading weights" not in err
    assert sum(pq.read_metadata(path).num_rows for path in out.glob("*.parquet")) == rows
    text = source.read_text().splitlines()[3]
    code, printed, err = run("search", out, text, "--model", tiny_base, "--top", "3", *shape)
    assert code == 0
    lines = [line.split("\t") for line in printed.splitlines()]
    assert len(lines) == 3
    assert [float(line[0]) for line in lines] == sorted((float(line[0]) for line in lines), reverse=True)
    code, printed, _ = run("search", source, text, "--model", tiny_base, "--top", "3", *shape)
    assert [line.split("\t")[1] for line in printed.splitlines()] == [line[1] for line in lines]


@pytest.mark.slow
def test_standard_input_is_embedded(saved, tmp_path, programs):
    done = process(programs, "embed", saved, "-", "--out", tmp_path / "out", input="one\ntwo\nthree\n")
    assert done.returncode == 0, done.stderr
    assert pq.read_table(tmp_path / "out" / "part-00000.parquet")["text"].to_pylist() == ["one", "two", "three"]
    assert "Traceback" not in done.stderr
    empty = process(programs, "embed", saved, "-", "--out", tmp_path / "none", input="")
    assert (empty.returncode, empty.stdout) == (2, "")
    assert empty.stderr == "error: standard input is empty: there is no text in it to read.\n"
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_an_interrupt_ends_with_130_and_leaves_a_folder_to_go_on_with(saved, tmp_path, programs):
    out = tmp_path / "out"
    command = [str(programs / "antiphon"), "embed", saved, "-", "--out", out, "--shard-size", "2"]
    running = subprocess.Popen(
        list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT
    )
    running.stdin.write(b"one\ntwo\n")
    running.stdin.flush()
    while not (out / "part-00000.parquet").exists() and running.poll() is None:
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate()
    assert running.returncode == 130, err.decode()
    assert b"Traceback" not in err
    assert (
        process(programs, "embed", saved, "-", "--out", out, "--shard-size", "2", input="one\ntwo\nthree\n").returncode
        == 0
    )
    assert json.loads((out / "_embed.json").read_text())["rows"] == 3


def test_parity_is_told_by_the_exit_code(saved, tiny_base, tmp_path, run):
    code, out, _ = run("parity", saved, saved)
    assert code == 0
    assert out.startswith("equal: error against spread")
    other = antiphon.build(tiny_base, "classical", pooling="last", max_tokens=128, dtype="float32", device="cpu")
    code, out, _ = run("parity", saved, antiphon.save(other, tmp_path / "other"))
    assert code == 1
    assert out.startswith("NOT equal")


BAD = [
    (["show", "{base}", "x", "--template", "ecko"], "no template 'ecko'. Did you mean 'echo'"),
    (["show", "{base}", "x", "--template", "no slot {prompt}"], "no {text} slot"),
    (["show", "{base}", "x", "--pooling", "median"], "no pooling 'median'"),
    (["show", "{base}", "x", "--prompt", "word " * 900, "--template", "classical"], "leaves no room for a text"),
    (["show", "{folder}", "x"], "holds no config.json"),
    (["show", "./nowhere", "x"], "There is no folder ./nowhere"),
    (["show", "{saved}", "x", "--template", "echo", "--max-tokens", "9"], "leave --template, --max-tokens out"),
    (["embed", "{saved}", "{folder}/none.jsonl", "--out", "{folder}/out"], "There is no file"),
    (["search", "{folder}", "x", "--model", "{saved}"], "holds no _embed.json"),
    (["search", "{folder}/texts.txt", " ", "--model", "{saved}"], "has no words"),
    (["demo", "--model", "{base}", "--pairs", "1"], "needs at least 2"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_a_users_mistake_is_one_sentence_and_exit_code_2(arguments, message, tiny_base, saved, source, run):
    names = {"{base}": tiny_base, "{saved}": saved, "{folder}": source.parent}
    for name, value in names.items():
        arguments = [argument.replace(name, str(value)) for argument in arguments]
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err
    assert "Traceback" not in err
    assert not (source.parent / "out").exists()


def test_messages_of_the_parser_end_with_2_too(run):
    assert run("embed", "nano")[0] == 2
    assert run("no-such-command")[0] == 2


def test_no_color_is_honoured_and_brackets_are_no_markup(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    report.error("a [bold]word[/bold]")
    assert "\x1b[" in capsys.readouterr().err
    monkeypatch.setenv("NO_COLOR", "1")
    report.error("a [bold]word[/bold]")
    assert "\x1b[31m" not in (err := capsys.readouterr().err)
    assert "a [bold]word[/bold]" in err


def test_progress_without_a_terminal_is_a_line_at_the_end(capsys):
    with report.progress("embedding") as tell:
        tell(10, 30)
        tell(20, 30)
        tell(30, 30)
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"embedding: 30 of 30, [\d,.]+/s\n", err)


def test_progress_on_a_terminal_shows_what_was_done_before(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with report.progress("embedding") as tell:
        tell(10, 30)
        tell(30, 30)
    assert "30/30" in capsys.readouterr().err
