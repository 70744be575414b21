"""What a request may say of cutting: taken where nothing is cut otherwise than the model cuts, else refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from antiphon.serving.error_responses import ApiError

FOR_WHOLE_TEXTS = ("NONE", "START", "left", "Left")


@dataclass(frozen=True)
class Space:
    """The room of a sequence, in tokens."""

    longest: int
    """Tokens of a text that surely fit."""
    frame: int
    """Tokens beside the text: template, prompt, BOS and EOS."""
    copies: int
    """How often the text is said."""


@dataclass(frozen=True)
class Cutting:
    """The wishes of a request; each holds the field's name for the sentence."""

    forbidden_by: str | None = None
    """The field that says that a text must not be cut, or not at that end."""
    sequence: tuple[str, int] | None = None
    """The most tokens of a sequence."""
    text: tuple[str, int] | None = None
    """The most tokens of a text."""

    @property
    def asks(self) -> bool:
        """Whether there is anything to look at."""
        return self != Cutting()

    def check(self, counts: Sequence[int], space: Space | None, field: str) -> None:
        """Raise a 400 for the first text that would be cut otherwise than the request wants it.

        `counts` are the tokens of the texts, `space` is None for a model without a limit.
        """
        for number, count in enumerate(counts):
            fits = count if space is None else min(count, space.longest)
            if self.forbidden_by is not None and fits < count:
                raise ApiError(
                    400,
                    f"Text {number} of {field} has {count:,} tokens and would be cut at about {fits:,}, which "
                    f"{self.forbidden_by} does not allow; send it in parts.",
                    param=self.forbidden_by,
                    code="text_too_long",
                )
            frame, copies = (0, 1) if space is None else (space.frame, space.copies)
            for limit, length in ((self.sequence, copies * fits + frame), (self.text, fits)):
                if limit is not None and length > limit[1]:
                    raise ApiError(
                        400,
                        f"{limit[0]} is {limit[1]:,} and text {number} of {field} makes {length:,} tokens; texts are "
                        "cut where the model was built to cut them, so leave it out or send shorter texts.",
                        param=limit[0],
                    )


def wished(**fields: object) -> Cutting:
    """Return what a request says of cutting, by the names of its fields and their values.

    Texts are cut at their end, which END and right say too; false, NONE, START and left are for texts that fit.
    """
    forbidden = next((name for name, value in fields.items() if value is False or value in FOR_WHOLE_TEXTS), None)
    numbers = {name: value for name, value in fields.items() if type(value) is int and value >= 0}
    sequence = numbers.pop("truncate_prompt_tokens", None)
    text = next(iter(numbers.items()), None)
    return Cutting(
        forbidden_by=forbidden,
        sequence=None if sequence is None else ("truncate_prompt_tokens", sequence),
        text=text,
    )
