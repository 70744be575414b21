"""One self-contained module file for `trust_remote_code`: antiphon's own modules with all they stand on, in one text.

It is put together from the source that is running, so what a folder carries is what the model was made with.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from importlib.resources import files

from antiphon import __version__
from antiphon.modules import SpanPooling, TemplateInput

FILE = "modeling_antiphon"
SOURCES = ("errors", "text/pieces", "text/tokenizer_json", "text/template", "text/tokens", "modules")
"""Each stands on those before it."""
CLASSES = {kind: f"{FILE}.{kind.__name__}" for kind in (TemplateInput, SpanPooling)}
_HEADER = '''"""Modules of this model, for sentence-transformers; put together by antiphon {version} (Apache-2.0).

It needs nothing but sentence-transformers and is loaded with SentenceTransformer(path, trust_remote_code=True).
"""

from __future__ import annotations
'''


def source() -> str:
    """Return the text of the module file."""
    trees = [ast.parse(files("antiphon").joinpath(f"{name}.py").read_text(encoding="utf-8")) for name in SOURCES]
    imports: dict[str, None] = {}
    bodies = []
    for tree in trees:
        kept, found = _without_imports(tree.body)
        imports.update(dict.fromkeys(found))
        bodies.append("\n\n\n".join(ast.unparse(node) for node in kept))
    header = _HEADER.format(version=__version__)
    return "\n\n".join([header + "\n" + "\n".join(sorted(imports)), *bodies]) + "\n"


def _without_imports(nodes: Iterable[ast.stmt]) -> tuple[list[ast.stmt], list[str]]:
    """Return the statements that stay, and the imports of other packages."""
    kept: list[ast.stmt] = []
    found: list[str] = []
    for number, node in enumerate(nodes):
        typing_only = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        docstring = number == 0 and isinstance(node, ast.Expr)
        if typing_only or docstring:
            continue
        if isinstance(node, ast.Import):
            found += [f"import {alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if (node.module or "").split(".")[0] not in ("antiphon", "__future__"):
                found += [f"from {node.module} import {alias.name}" for alias in node.names]
        else:
            kept.append(node)
    return kept, found
