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
_SYSTEM = "\u241eSYSTEM\u241e"
_DAYS = (datetime(2024, 7, 26), datetime(2023, 1, 2))
"""Two days on which a chat template has to say the same."""
_OTHERWISE = (
    "take 'echo' or 'classical', or spell a template out, such as '<|user|>{text}<|assistant|>' ('anchor' is that of "
    "Llama 3, 'anchor-chatml' that of Qwen)"
)

logger = logging.getLogger(__name__)


def resolve(template: Template, tokenizer: PreTrainedTokenizerBase) -> Template:
    """Return the template with the model's chat template written out, where it asks for that; else as it is.

    Written out, a saved model says the same for ever. A system block that the chat template brings by itself (a date,
    a greeting) is left out: nobody asked for it. Raises ConfigError where the chat template is missing, broken, demands
    more than one message of the user, changes that message, says it more than once, or depends on the day.
    """
    if template.name != CHAT or template.query != CHAT_CONTENT:
        return template
    if not getattr(tokenizer, "chat_template", None):
        raise ConfigError(
            "Template 'chat' needs a tokenizer with a chat template and this one has none; take 'echo' or 'classical'."
        )
    before, after = _around_message(tokenizer)
    before = _without_system(tokenizer, before).removeprefix(tokenizer.bos_token or "")
    after = after.rstrip().removesuffix(tokenizer.eos_token or "")
    opening, closing = (part.replace("{", "{{").replace("}", "}}") for part in (before, after))
    # the clause of the instruction is the rest of its line: here it begins behind the words of the chat template
    return replace(template, query=f"{opening}{{}}{CHAT_CONTENT}{closing}")


def _around_message(tokenizer: PreTrainedTokenizerBase) -> tuple[str, str]:
    """Return what a chat template says before and after a message of the user."""
    first, *rest = _MESSAGES
    rendered = _chat(tokenizer, [_user(first)], _DAYS[0])
    before, *others = rendered.split(first)
    if not others:
        raise ConfigError(f"The chat template of this model does not repeat the user's message; {_OTHERWISE}.")
    if len(others) > 1:
        raise ConfigError(
            f"The chat template of this model says the user's message {len(others)} times, and which of them is to be "
            f"pooled is not known; {_OTHERWISE}."
        )
    after = others[0]
    if any(_chat(tokenizer, [_user(message)], _DAYS[0]) != before + message + after for message in rest):
        raise ConfigError(
            "The chat template of this model changes the user's message, or what it says depends on it, so that it "
            f"cannot be written out around every text; {_OTHERWISE}."
        )
    return before, after


def _without_system(tokenizer: PreTrainedTokenizerBase, before: str) -> str:
    """Return what stands before the user's message, without a system block that the chat template brings by itself.

    Where one stands is told by a system message of ours: what is said before and after that is the block's frame.
    Raises ConfigError where what is left depends on the day, or where the user's turn begins is not to be told.
    """
    first = _MESSAGES[0]
    system = {"role": "system", "content": _SYSTEM}
    try:
        framed = _chat(tokenizer, [system, _user(first)], _DAYS[0]).partition(first)[0]
    except ConfigError:
        framed = ""  # it knows no system message, so it brings none
    opening, found, closing = framed.partition(_SYSTEM)
    brought = before[len(opening) : len(before) - len(closing)]
    left = before
    if found and closing and before == opening + brought + closing:
        left = closing[_turn(tokenizer, opening, closing) :]
        logger.info("The chat template of this model brings a system block (%r), which is left out.", brought[:80])
    other = _chat(tokenizer, [_user(first)], _DAYS[1]).partition(first)[0]
    if not other.endswith(left) or (left == before and other != before):
        raise ConfigError(
            f"What the chat template of this model says depends on the day ({before[:80]!r}), so that vectors of one "
            f"day would not be those of another; {_OTHERWISE}."
        )
    return left


def _turn(tokenizer: PreTrainedTokenizerBase, opening: str, closing: str) -> int:
    """Return where the user's turn begins in what stands between a system message and the user's.

    A turn begins with the special token that begins the system's, or else with the last one.
    """
    special = [token for token in tokenizer.get_added_vocab() if token != tokenizer.bos_token and token.strip()]
    in_opening = sorted((opening.index(token), token) for token in special if token in opening)
    if in_opening and in_opening[0][1] in closing:
        return closing.rindex(in_opening[0][1])
    places = [closing.rindex(token) for token in special if token in closing]
    if not places:
        raise ConfigError(
            f"The chat template of this model brings a system block and where the user's turn begins behind it "
            f"({closing[:80]!r}) is not known; {_OTHERWISE}."
        )
    return max(places)


def _user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def _chat(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], day: datetime) -> str:
    """Return what a chat template makes of messages on a day."""
    doing = f"The chat template of this model cannot be written out around a user's message ({_OTHERWISE})"
    with foreign(doing, ConfigError):
        source = _on_day(day) + tokenizer.get_chat_template()
        return str(tokenizer.apply_chat_template(messages, chat_template=source, tokenize=False))


def _on_day(day: datetime) -> str:
    """Return the line before a chat template that stops its clock: a macro in the place of `strftime_now`."""
    written = "".join(f"|replace('%{code}', '{day.strftime('%' + code)}')" for code in "aAbBdmyYHIMSpjc")
    return f"{{%- macro strftime_now(format) -%}}{{{{ format{written} }}}}{{%- endmacro %}}\n"
