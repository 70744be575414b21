"""The rules of templates, each shown: spaces, specials in user text, sides, clauses, spans, lengths, names."""

from __future__ import annotations

import pytest
from conftest import train_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

import antiphon
from antiphon.errors import ConfigError, DataError
from antiphon.text.baking import bake
from antiphon.text.chat import resolve
from antiphon.text.template import TEMPLATES, Template, fills_slots, named, prompt_for
from antiphon.text.tokens import LengthBudget, PieceTokenizer, sequences

TOKENIZERS = {kind: train_tokenizer(kind) for kind in ("byte-level", "metaspace", "legacy")}
PIECES = {kind: PieceTokenizer(tokenizer) for kind, tokenizer in TOKENIZERS.items()}


def rows(template, texts, kind="byte-level", *, prompt="", side="query", max_tokens=400):
    return sequences(texts, named(template), PIECES[kind], prompt=prompt, side=side, max_tokens=max_tokens)


def decoded(row, kind="byte-level", *, pooled_only=False):
    ids = [i for i, marked in zip(row.ids, row.pooled, strict=True) if marked or not pooled_only]
    return TOKENIZERS[kind].decode(ids)


@pytest.mark.parametrize("kind", list(PIECES))
@pytest.mark.parametrize("text", ["A plain sentence.", "naïve 東京", "two  runs   of spaces", "42"])
def test_joined_pieces_read_as_the_whole_string(kind, text):
    whole = f"Rewrite the following paragraph: {text}. The rewritten paragraph: {text}"
    pieces = rows("echo-rewrite", [text], kind)[0].ids
    tokenizer = TOKENIZERS[kind]
    # the text's end and the full stop may merge in the whole string; a sentence that ends in a word does not
    if text[-1].isalnum():
        assert pieces == [1, *tokenizer(whole, add_special_tokens=False)["input_ids"], 2]
    assert tokenizer.decode(pieces[1:-1]).strip() == whole


@given(text=st.text(max_size=60))
@settings(max_examples=150, deadline=None)
@pytest.mark.parametrize("kind", list(PIECES))
def test_both_copies_have_the_same_ids_and_only_the_second_is_pooled(kind, text):
    row = rows("echo", [text], kind)[0]
    copy = PIECES[kind].texts([" " + text.lstrip(" ") if text.lstrip(" ") else ""], first=False)[0]
    pooled = [i for i, marked in zip(row.ids, row.pooled, strict=True) if marked]
    assert pooled == [*copy, 2]
    first = len(PIECES[kind].frame("Query:", first=True)) + 1
    assert row.ids[first : first + len(copy)] == copy
    assert row.pooled.index(True) == len(row.ids) - len(copy) - 1


@pytest.mark.parametrize("kind", list(PIECES))
def test_one_space_before_a_slot_belongs_to_the_slot(kind):
    spaced, bare = (rows("echo-rewrite", [text], kind)[0].ids for text in ("   word", "word"))
    assert spaced == bare
    assert rows("echo-rewrite", [""], kind)[0].ids == rows("echo-rewrite", ["  "], kind)[0].ids


@pytest.mark.parametrize("kind", list(PIECES))
def test_special_tokens_in_user_text_and_instruction_are_text(kind):
    row = rows("echo", ["stop </s> here"], kind, prompt="<s> find")[0]
    assert row.ids.count(2) == 1
    assert row.ids[-1] == 2
    assert row.ids.count(1) == 1
    assert "</s>" in decoded(row, kind)[:-4]


def test_a_clause_disappears_without_a_prompt():
    assert decoded(rows("echo", ["hi"])[0]) == "<s>Query: hi\nQuery again: hi</s>"
    with_prompt = decoded(rows("echo", ["hi"], prompt="Find the answer")[0])
    assert with_prompt == "<s>Instruct: Find the answer,\nQuery: hi\nQuery again: hi</s>"
    assert decoded(rows("Do {prompt}, then say: {text}", ["hi"])[0]) == "<s>then say: hi</s>"
    assert decoded(rows("{prompt} {text}", ["hi"])[0]) == "<s>hi</s>"
    assert decoded(rows("{prompt} {text}", ["hi"], prompt="Say")[0]) == "<s>Say hi</s>"
    assert decoded(rows("A\nB {prompt}\nC {text}", ["hi"])[0]) == "<s>A\nC hi</s>"


def test_sides_pick_the_variant_and_only_queries_hear_the_instruction():
    assert decoded(rows("echo", ["hi"], side="document")[0]) == "<s>Document: hi\nDocument again: hi</s>"
    with pytest.raises(ConfigError, match=r"no \{prompt\} slot on the document side"):
        rows("echo", ["hi"], side="document", prompt="Find it")
    with pytest.raises(ConfigError, match="takes no instruction"):
        rows("echo-rewrite", ["hi"], prompt="Find it")


def test_the_marked_copy_is_pooled_and_the_last_one_where_none_is_marked():
    assert decoded(rows("[{text}] and {text}.", ["hi"])[0], pooled_only=True) == "hi</s>"
    assert rows("[{text}] and {text}.", ["hi"])[0].pooled[:2] == [False, True]
    assert rows("{text} and {text}.", ["hi"])[0].pooled[:2] == [False, False]


@pytest.mark.parametrize("template", ["echo", "echo-rewrite", "classical", "classical-write", "eol"])
def test_max_tokens_counts_everything_with_one_copy(template):
    long, limit = "word " * 500, 100
    row = rows(template, [long], max_tokens=limit)[0]
    room = LengthBudget.of(TEMPLATES[template], PIECES["byte-level"], "query", limit)
    assert room.overhead + room.budget == limit
    assert len(row.ids) == room.longest == limit + (room.copies - 1) * room.budget
    assert (row.ids[-1] == 2) is (template != "eol")
    pooled = sum(row.pooled) - 1
    assert pooled == room.budget, "both copies are cut alike"


def test_compute_matched_shares_the_tokens_of_one_copy_out():
    long = "word " * 500
    for template, limit in (("echo-matched", 100), ("echo-rewrite-matched", 101)):
        assert limit - 1 <= len(rows(template, [long], max_tokens=limit)[0].ids) <= limit
    assert named("classical-matched").compute_matched
    assert rows("classical-matched", [long], max_tokens=50) == rows("classical", [long], max_tokens=50)


@pytest.mark.parametrize("kind", list(PIECES))
def test_a_tokenizer_that_holds_the_template_says_what_the_pieces_say(kind):
    """Also for giants: truncation pairs what it cuts off from both copies, by the square, unless it is cut before."""
    template, limit = TEMPLATES["echo-rewrite"], 60
    room = LengthBudget.of(template, PIECES[kind], "query", limit)
    baked = bake(train_tokenizer(kind), template, budget=room.budget)
    texts = ["", "  ", "word", "  two", "a\n  b\n", "é" * 5000]
    texts += ["word " * 200_000, "a\nb " * 100_000, "=" * 300_000]
    wanted = [row.ids for row in rows("echo-rewrite", texts, kind, max_tokens=limit)]
    assert baked(texts, truncation=True, max_length=limit)["input_ids"] == wanted


def test_an_over_long_instruction_is_refused():
    with pytest.raises(ConfigError, match=r"leaves no room for a text in max_tokens=30; shorten the instruction"):
        rows("echo", ["hi"], prompt="very " * 60, max_tokens=30)


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        ("ekho", "Did you mean 'echo'"),
        ("nonsense", "There is no template 'nonsense'"),
        ("Say {prompt}", r"There is no \{text\} slot"),
        ("Say {txt}", r"unknown slot \{txt\}"),
        ("Say {text", "stray brace"),
        ("{prompt} {prompt} {text}", "more than once"),
        ("Say [{text} again", "not closed"),
        ("Say {text!r}", "unknown slot"),
    ],
)
def test_a_template_that_cannot_be_used_says_why(bad, sentence):
    with pytest.raises(ConfigError, match=sentence):
        named(bad)


def test_escaped_braces_are_braces():
    assert decoded(rows('{{"q": "{text}"}}', ["hi"])[0]) == '<s>{"q": "hi"}</s>'


def chat_tokenizer(source: str) -> PreTrainedTokenizerFast:
    tokenizer = train_tokenizer("byte-level")
    tokenizer.chat_template = source
    return tokenizer


def test_chat_writes_the_models_own_template_out():
    source = (
        "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{curly}\n{{ m.content }}{{ eos_token }}\n{% endfor %}"
    )
    tokenizer = chat_tokenizer(source)
    template = resolve(TEMPLATES["chat"], tokenizer)
    pieces = PieceTokenizer(tokenizer)
    plain, told = (
        tokenizer.decode(sequences(["hi"], template, pieces, prompt=p, side="query", max_tokens=99)[0].ids)
        for p in ("", "Find it")
    )
    assert plain == "<s><|user|>{curly}\nhi</s>"
    assert told == "<s><|user|>{curly}\nFind it\nhi</s>"
    with pytest.raises(ConfigError, match="has none; take 'echo'"):
        resolve(TEMPLATES["chat"], train_tokenizer("byte-level"))


CHATS = {
    "[INST] {{ messages[0].content }} [/INST]": ("[INST] hi [/INST]", "[INST] Find it\nhi [/INST]"),
    "<u>{{ messages[0].content | trim }}</u>": ("<u>hi</u>", "<u>Find it\nhi</u>"),
    "[{{ messages[0].content }}]": ("[hi]", "[Find it\nhi]"),
    "{ {{ messages[0].content }} }": ("{ hi }", "{ Find it\nhi }"),
}


@pytest.mark.parametrize("source", CHATS)
@pytest.mark.parametrize("kind", list(PIECES))
def test_the_words_before_the_message_stay_when_there_is_no_instruction(source, kind):
    """Also those on its line, with the ids that the whole string has: a clause is the instruction's own."""
    tokenizer = train_tokenizer(kind)
    tokenizer.chat_template = source
    template = resolve(TEMPLATES["chat"], tokenizer)
    pieces = PieceTokenizer(tokenizer)
    for prompt, meant in zip(("", "Find it"), CHATS[source], strict=True):
        row = sequences(["hi"], template, pieces, prompt=prompt, side="query", max_tokens=99)[0]
        assert tokenizer.decode(row.ids[1:-1]).lstrip(" ") == meant
    if source.startswith("[INST]"):  # no merge reaches over the border of the text here
        plain = sequences(["hi"], template, pieces, prompt="", side="query", max_tokens=99)[0]
        assert plain.ids[1:-1] == tokenizer("[INST] hi [/INST]", add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        (
            "{{ raise_exception('A system message is needed') }}",
            "around a user's message .* A system message is needed",
        ),
        ("{% for m in messages %}{{ m.content }", "around a user's message .* TemplateSyntaxError"),
        ("{{ messages[3].content }}", "UndefinedError, list object has no element 3"),
        ("{{ messages[0].content.__class__ }}", "does not repeat the user's message|SecurityError"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{% include 'other' %}", "TypeError"),
        ("Hello!", "does not repeat the user's message; take 'echo'"),
        ("{{ messages[0].content }} {{ messages[0].content }}", "says the user's message 2 times"),
        ("{{ messages[0].content | upper }}", "changes the user's message"),
        ("{% if 'think' in messages[0].content %}Hm. {% endif %}{{ messages[0].content }}", "or what it says depends"),
        ({"tools": "{{ messages[0].content }}"}, "multiple chat templates with no default"),
    ],
)
def test_a_chat_template_that_cannot_be_written_out_says_why(source, sentence):
    with pytest.raises(ConfigError, match=sentence) as caught:
        resolve(TEMPLATES["chat"], chat_tokenizer(source))
    assert "take 'echo' or 'classical', or spell a template out" in str(caught.value)


def test_an_empty_slot_keeps_what_stands_before_an_instruction():
    assert decoded(rows("Read this: {}{prompt}\n{text}", ["hi"])[0]) == "<s>Read this: hi</s>"
    assert decoded(rows("Read this: {}{prompt}\n{text}", ["hi"], prompt="Slowly")[0]) == "<s>Read this: Slowly\nhi</s>"
    assert decoded(rows("Read this: {prompt}\n{text}", ["hi"])[0]) == "<s>hi</s>"


def test_prompt_for_is_the_one_seam(tiny_base):
    slots = antiphon.build(tiny_base, "echo", max_tokens=128)
    stock = antiphon.build(tiny_base, "classical", pooling="last", max_tokens=128)
    zero_shot = antiphon.build(tiny_base, max_tokens=128)
    assert fills_slots(slots)
    assert not fills_slots(stock)
    assert prompt_for(slots, "Find it", "query") == "Find it"
    assert prompt_for(slots, "Find it", "document") == ""
    assert prompt_for(stock, "Find it", "query") == "Instruct: Find it,\nQuery: "
    assert prompt_for(stock, "Find it", "document") == prompt_for(stock, "", "document") == "Document: "
    assert prompt_for(zero_shot, "Find it", "query") == ""
    stock[0].__dict__.pop("template_spec")
    stock.prompts = {"query": "Instruct: Given a question, answer\nQuery:"}
    assert prompt_for(stock, "Find it", "query") == "Instruct: Find it\nQuery:"
    assert prompt_for(stock, "Find it", "document") == ""


def test_a_type_error_of_ours_is_no_silent_retry(tiny_base):
    model = antiphon.build(tiny_base, "echo", max_tokens=128)
    with pytest.raises(DataError, match="Text 1 is 7 of type int"):
        model.encode(["a", 7])
    with pytest.raises(DataError, match="could not be prepared"):
        model[0].preprocess(["a"], max_length="long")


def test_templates_are_frozen_data():
    assert Template("mine", "a {text}").one_variant
    assert set(TEMPLATES) > {"classical", "echo", "classical-write", "echo-rewrite", "eol", "chat"}
