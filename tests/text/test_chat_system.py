"""The chat template of a model without what it brings by itself: a system block, a date."""

from __future__ import annotations

import pytest
from conftest import train_tokenizer
from tokenizers import AddedToken

from antiphon.errors import ConfigError
from antiphon.text.chat import resolve
from antiphon.text.template import CHATML, LLAMA, TEMPLATES

LLAMA_CHAT = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{% set told = messages[0].content %}{% set messages = messages"
    "[1:] %}{% else %}{% set told = '' %}{% endif %}<|start_header_id|>system<|end_header_id|>\n\nCutting "
    "Knowledge Date: December 2023\nToday Date: {{ strftime_now('%d %b %Y') }}\n\n{{ told }}<|eot_id|>"
    "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content }}<|eot_id|>{% endfor %}"
)
QWEN_CHAT = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
)
PHI_CHAT = (
    "{% if messages[0].role != 'system' %}<|system|>Be kind.<|end|>{% endif %}"
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
)


def tokenizer_of(source: str, *special: str):
    tokenizer = train_tokenizer("byte-level")
    tokenizer.add_tokens([AddedToken(token, special=True) for token in special])
    tokenizer.chat_template = source
    return tokenizer


@pytest.mark.parametrize(
    ("source", "special", "opening", "closing"),
    [
        (LLAMA_CHAT, ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"), LLAMA, "<|eot_id|>"),
        (QWEN_CHAT, ("<|im_start|>", "<|im_end|>"), CHATML, "<|im_end|>"),
        (PHI_CHAT, ("<|system|>", "<|user|>", "<|end|>"), "<|user|>", "<|end|>"),
    ],
)
def test_a_system_block_that_nobody_asked_for_is_left_out(source, special, opening, closing):
    template = resolve(TEMPLATES["chat"], tokenizer_of(source, *special))
    assert template.query == f"{opening}{{}}{{prompt}}\n{{text}}{closing}"


@pytest.mark.parametrize(
    "source",
    [
        "Today: {{ strftime_now('%d %b %Y') }}\n{{ messages[0].content }}",
        LLAMA_CHAT.replace("{{ m.role }}<|end_header_id|>", "{{ m.role }} {{ strftime_now('%A') }}"),
    ],
)
def test_what_depends_on_the_day_is_refused_with_the_way_out(source):
    with pytest.raises(ConfigError, match=r"depends on the day .*spell a template out.*'anchor' is that of Llama 3"):
        resolve(TEMPLATES["chat"], tokenizer_of(source, "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"))


def test_a_block_behind_which_no_turn_begins_is_refused():
    source = (
        "{% if messages[0].role != 'system' %}A rule: Be kind. {% endif %}"
        "{% for m in messages %}A {{ 'rule' if m.role == 'system' else 'text' }}: {{ m.content }} {% endfor %}"
    )
    with pytest.raises(ConfigError, match=r"where the user's turn begins behind it .* is not known"):
        resolve(TEMPLATES["chat"], tokenizer_of(source))
