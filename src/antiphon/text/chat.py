"""The model's own chat template as a template of ours: written out around one message of the user, or refused."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import datetime

from transformers import PreTrainedTokenizerBase

from antiphon.errors import ConfigError, foreign
from antiphon.text.template import CHAT, CHAT_CONTENT, Template

_MESSAGES = ("\u241eCONTENT\u241e", "An instruction\n  a text of two lines", "/no_think <think> </think> 42")
"""Messages around which a chat template must say the same; many take white space off their ends, which may be."""
_DAYS = (datetime(2024, 7, 26), datetime(2023, 1, 2))
"""The day on which chat templates are written out (that of Llama 3's own, where no clock is at hand), and another."""
_OTHERWISE = "take 'echo' or 'classical', or spell a template out, such as '<|user|>{text}<|assistant|>'"

logger = logging.getLogger(__name__)


def resolve(template: Template, tokenizer: PreTrainedTokenizerBase) -> Template:
    """Return the template with the model's chat template written out, where it asks for that; else as it is.

    Written out, a saved model says the same for ever. Raises ConfigError where the chat template is missing, broken,
    demands more than one message of the user, changes that message, or says it more than once.
    """
    if template.name != CHAT or template.query != CHAT_CONTENT:
        return template
    if not getattr(tokenizer, "chat_template", None):
        raise ConfigError(
            "Template 'chat' needs a tokenizer with a chat template and this one has none; take 'echo' or 'classical'."
        )
    before, after = _around_message(tokenizer)
    before = before.removeprefix(tokenizer.bos_token or "")
    after = after.rstrip().removesuffix(tokenizer.eos_token or "")
    opening, closing = (part.replace("{", "{{").replace("}", "}}") for part in (before, after))
    # the clause of the instruction is the rest of its line: here it begins behind the words of the chat template
    return replace(template, query=f"{opening}{{}}{CHAT_CONTENT}{closing}")


def _around_message(tokenizer: PreTrainedTokenizerBase) -> tuple[str, str]:
    """Return what a chat template says before and after a message of the user."""
    first, *rest = _MESSAGES
    said_first = _chat(tokenizer, first, _DAYS[0])
    before, *others = said_first.split(first)
    if not others:
        raise ConfigError(f"The chat template of this model does not repeat the user's message; {_OTHERWISE}.")
    if len(others) > 1:
        raise ConfigError(
            f"The chat template of this model says the user's message {len(others)} times, and which of them is to be "
            f"pooled is not known; {_OTHERWISE}."
        )
    after = others[0]
    if any(_chat(tokenizer, message, _DAYS[0]) != before + message + after for message in rest):
        raise ConfigError(
            "The chat template of this model changes the user's message, or what it says depends on it, so that it "
            f"cannot be written out around every text; {_OTHERWISE}."
        )
    if _chat(tokenizer, first, _DAYS[1]) != said_first:
        logger.warning(
            "The chat template of this model names the day; it is written out with %s, so that a model built on "
            "another day says the same.",
            f"{_DAYS[0]:%d %b %Y}",
        )
    return before, after


def _chat(tokenizer: PreTrainedTokenizerBase, message: str, day: datetime) -> str:
    """Return what a chat template makes of one message of the user on a day."""
    doing = f"The chat template of this model cannot be written out around a user's message ({_OTHERWISE})"
    with foreign(doing, ConfigError):
        source = _on_day(day) + tokenizer.get_chat_template()
        messages = [{"role": "user", "content": message}]
        return str(tokenizer.apply_chat_template(messages, chat_template=source, tokenize=False))


def _on_day(day: datetime) -> str:
    """Return the line before a chat template that stops its clock: a macro in the place of `strftime_now`."""
    written = "".join(f"|replace('%{code}', '{day.strftime('%' + code)}')" for code in "aAbBdmyYHIMSpjc")
    return f"{{%- macro strftime_now(format) -%}}{{{{ format{written} }}}}{{%- endmacro %}}\n"
