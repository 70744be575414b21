"""What is said to the model: text with slots, in a query and a document variant, and which part of it is pooled.

A template is a string. `{text}` is the text, and `[{text}]` a copy of it that is pooled (the last copy, where none is
marked); `{prompt}` is the instruction. Its clause, the rest of its line, disappears where there is no instruction.
`{{` and `}}` are braces. How it is cut into pieces is pieces.py's business, how they become ids that of tokens.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from antiphon.errors import ConfigError, closest
from antiphon.text.pieces import Piece, parse, rendered

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Side = Literal["query", "document"]
SIDES: tuple[Side, Side] = ("query", "document")
DEFAULT = "echo-rewrite"
"""The best zero-shot cell of Echo, with pooling "mean"."""
MATCHED = "-matched"
CHAT = "chat"
CHAT_CONTENT = "{prompt}\n{text}"
LLAMA = "<|start_header_id|>user<|end_header_id|>\n\n"
CHATML = "<|im_start|>user\n"


@dataclass(frozen=True)
class Template:
    """A query and a document variant under one name; the document variant defaults to the query's."""

    name: str
    query: str
    document: str | None = None
    compute_matched: bool = False
    """Cut the text so that all its copies together take the tokens that one copy would (Echo, section 4.7)."""
    eos: bool = True
    """Whether EOS ends the sequence and the pooled span; without it the sequence's last token closes the span."""
    alone: bool = False
    """Whether each piece is tokenised as if it began the sequence, with whatever the tokenizer puts before a text, as
    Echo's parser does it; a frame behind the instruction belongs to it, up to `{}`."""
    clause_space: bool = False
    """Whether the space behind the clause of an instruction stays where the clause goes, as 0.1.0 had it."""

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Template:
        """Return the template that `to_dict` gave, or one that 0.1.0 saved, which is read as it was then.

        Raises TypeError for fields that are none of a template's, ConfigError for a template that cannot be parsed.
        """
        template = cls(**fields)
        if "clause_space" in fields:
            return template
        before = replace(template, clause_space=True)
        return before if _differs(template, before) else template

    def __post_init__(self) -> None:
        for side in SIDES:
            self.pieces(side)  # refuses a template that cannot be parsed

    def pieces(self, side: Side) -> tuple[Piece, ...]:
        """Return the parsed variant of one side."""
        source = self.document if side == "document" and self.document is not None else self.query
        return parse(source, f"template {self.name!r}", clause_space=self.clause_space, alone=self.alone)

    @property
    def one_variant(self) -> bool:
        """Whether query and document read alike."""
        return self.pieces("query") == self.pieces("document")

    def takes_instruction(self, side: Side) -> bool:
        """Return whether this side's variant has a slot for an instruction."""
        return any(piece.kind == "prompt" for piece in self.pieces(side))

    @property
    def in_tokenizer(self) -> bool:
        """Whether a tokenizer can say all of it: one variant, no instruction."""
        return self.one_variant and not self.takes_instruction("query") and not self.takes_instruction("document")

    @property
    def in_prompts(self) -> bool:
        """Whether a plain prefix can say all of it: words before a single copy of the text, on both sides."""
        variants = (self.pieces("query"), self.pieces("document"))
        return (
            not self.in_tokenizer
            and not self.alone
            and all(
                sum(piece.kind == "text" for piece in pieces) == 1 and pieces[-1].kind == "text" for pieces in variants
            )
        )

    def copies(self, side: Side) -> int:
        """Return how often the text is said."""
        return sum(piece.kind == "text" for piece in self.pieces(side))

    def prefix(self, instruction: str, side: Side) -> str:
        """Return what stands before the text, for a template that is a prefix only."""
        if instruction and not self.takes_instruction(side):
            raise ConfigError(no_prompt_slot(self.name, side))
        return "".join(
            piece.content
            if piece.kind == "frame"
            else " " * piece.space + ("" if piece.kind == "text" else instruction.lstrip(" "))
            for piece in rendered(self.pieces(side), instruction)
        )

    def written(self, text: str, instruction: str, side: Side) -> str:
        """Return the whole string that is said around a text, without BOS and EOS."""
        filled = {"text": text, "prompt": instruction}
        pieces = rendered(self.pieces(side), instruction)
        return "".join(p.content if p.kind == "frame" else p.fill(filled[p.kind]) for p in pieces)

    def to_dict(self) -> dict[str, object]:
        """Return the fields, for a JSON file; those that 0.1.0 did not know only where they change something."""
        fields = asdict(self)
        later = {"eos": self.eos is False, "alone": self.alone}
        later["clause_space"] = not self.clause_space and _differs(self, replace(self, clause_space=True))
        return {name: value for name, value in fields.items() if later.get(name, True)}


TEMPLATES: Mapping[str, Template] = {
    template.name: template
    for template in (
        # Echo, section 4.4 and appendix F: fine-tuned, instructed; classical is the same without the second copy
        Template("classical", "Instruct: {prompt},\nQuery: [{text}]", "Document: [{text}]"),
        Template(
            "echo",
            "Instruct: {prompt},\nQuery: {text}\nQuery again: [{text}]",
            "Document: {text}\nDocument again: [{text}]",
        ),
        # Echo, section 4.2: zero-shot
        Template("classical-write", "Write a paragraph: [{text}]"),
        Template("echo-rewrite", "Rewrite the following paragraph: {text}. The rewritten paragraph: [{text}]"),
        # PromptEOL, one of the forms of Echo, appendix D: the state that would say the one word
        Template("eol", 'This text: "[{text}]" means in one word: "', eos=False),
        # what the published code says, verbatim: Echo's parser with the paper's spaces inside its braces, ...
        Template("classical-write-parser", "Write a paragraph: [{text}]", alone=True),
        Template(
            "echo-rewrite-parser",
            "Rewrite the following paragraph: {text}. The rewritten paragraph: [{text}]",
            alone=True,
        ),
        Template(
            "echo-parser",
            "Instruct: {prompt},{}\nQuery: {text}\nQuery again: [{text}]",
            "Document: {text}\nDocument again: [{text}]",
            alone=True,
        ),
        # ... and as its README has them
        Template(
            "echo-rewrite-readme",
            "Rewrite the following paragraph: {}{text}. The rewritten paragraph: {}[{text}]",
            alone=True,
        ),
        Template(
            "echo-readme",
            "Instruct:{prompt},{}\nQuery:{text}\nQuery again:[{text}]",
            "Document:{text}\nDocument again:[{text}]",
            alone=True,
        ),
        # Anchor: Llama 3's header for every model; the ChatML one is what its Qwen wrapper, never called, would say
        Template("anchor", f"{LLAMA}{{prompt}}; [{{text}}]<|eot_id|>", f"{LLAMA}[{{text}}]<|eot_id|>", eos=False),
        Template(
            "anchor-chatml", f"{CHATML}{{prompt}}; [{{text}}]<|im_end|>", f"{CHATML}[{{text}}]<|im_end|>", eos=False
        ),
        Template("llm2vec", "{prompt}; [{text}]", "[{text}]", eos=False),
        # the model's own chat template around the text; written out for a tokenizer by chat.py's `resolve`
        Template(CHAT, CHAT_CONTENT),
    )
}


def _differs(template: Template, other: Template) -> bool:
    """Return whether two templates say anything differently without an instruction."""
    return any(rendered(template.pieces(side), "") != rendered(other.pieces(side), "") for side in SIDES)


def named(template: str | Template) -> Template:
    """Return the template of a name, or the one that a string with `{text}` in it spells out.

    `-matched` behind a name asks for compute matching: `echo-matched`.
    """
    if isinstance(template, Template):
        return template
    base = template.removesuffix(MATCHED)
    if base in TEMPLATES:
        return replace(TEMPLATES[base], compute_matched=base != template)
    if "{" in template:
        return Template("custom", template)
    near = closest(template, TEMPLATES)
    hint = f" Did you mean {near!r}?" if near is not None else ""
    raise ConfigError(
        f"There is no template {template!r}.{hint} Take one of {', '.join(TEMPLATES)}, "
        "or spell one out with a {text} slot, such as 'Summary: {text}'."
    )


def no_prompt_slot(name: str, side: Side) -> str:
    """Return the sentence for an instruction that has no place to go."""
    return (
        f"Template {name!r} has no {{prompt}} slot on the {side} side, so it takes no instruction there; "
        "leave the prompt out or take a template with the slot, such as 'echo' for queries."
    )


def template_of(model: SentenceTransformer) -> Template | None:
    """Return the template of a model that antiphon built or loaded, None for any other."""
    spec = getattr(model[0], "template_spec", None)
    return spec if isinstance(spec, Template) else None


def fills_slots(model: SentenceTransformer) -> bool:
    """Return whether `prompt=` fills a slot of the template, rather than standing before the text."""
    return hasattr(model[0], "template")


def prompt_for(model: SentenceTransformer, instruction: str, side: Side) -> str:
    r"""Return what to hand to sentence-transformers as `prompt` so that the model gets the instruction on this side.

    The bare instruction for a template with a slot, the whole prefix for a stock model, and an empty string where the
    template has no place for one (zero-shot echo, or the document side). A model of others gets the form of its own
    `query` prompt, or E5's `Instruct: ...\nQuery: `.
    """
    template = template_of(model)
    if template is None:
        own = (model.prompts or {}).get("query") or "Instruct: \nQuery: "
        ending = "\nQuery: " if own.endswith(" ") else "\nQuery:"
        return f"Instruct: {instruction}{ending}" if instruction and side == "query" else ""
    given = instruction if template.takes_instruction(side) else ""
    if fills_slots(model):
        return given
    return template.prefix(given, side) if template.in_prompts else ""
