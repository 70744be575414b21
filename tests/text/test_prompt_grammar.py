"""The seeded grammar of prompts (Echo, appendix D)."""

from __future__ import annotations

from collections import Counter

import pytest

from antiphon.errors import ConfigError
from antiphon.text.grammar import CLASSICAL_ACTIONS, ECHO_ACTIONS, variants


@pytest.mark.parametrize(
    ("kind", "actions", "copies"), [("echo", ECHO_ACTIONS, 2), ("classical", CLASSICAL_ACTIONS, 1)]
)
def test_variants_are_seeded_different_and_share_the_actions_out(kind, actions, copies):
    drawn = variants(kind, 12, seed=3)
    assert drawn == variants(kind, 12, seed=3)
    assert drawn != variants(kind, 12, seed=4)
    assert len({template.query for template in drawn}) == 12
    assert all(template.copies("query") == copies for template in drawn)
    opening = Counter(next(a for a in actions if t.query.lower().startswith(a.lower())) for t in drawn)
    assert max(opening.values()) - min(opening.values()) <= 1, "three of each in the paper"
    assert all(sum(piece.pooled for piece in template.pieces("query")) == 1 for template in drawn)
    assert [piece.pooled for piece in drawn[0].pieces("query") if piece.kind == "text"][-1]


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ConfigError, match="no prompt variants of kind 'eko'"):
        variants("eko", 3)
    with pytest.raises(ConfigError, match="fewer than 100000"):
        variants("classical", 100_000)
