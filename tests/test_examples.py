"""Every public name ends in an example, and each of them runs."""

from __future__ import annotations

import doctest
import inspect

import antiphon.losses
import antiphon.mixtures
import antiphon.pairs
import antiphon.parity
import pytest
from torch import nn

import antiphon

pytestmark = pytest.mark.usefixtures("warm_checks")

MODULES = (antiphon.losses, antiphon.mixtures, antiphon.pairs, antiphon.parity)


def made_to_be_called(member: object) -> bool:
    """Whether a public name is a function of ours, or a loss: records and settings are read, not called."""
    ours = (getattr(member, "__module__", None) or "").startswith("antiphon.")
    return ours and (inspect.isfunction(member) or (inspect.isclass(member) and issubclass(member, nn.Module)))


METHODS = {name: member for name, member in vars(antiphon.Encoder).items() if inspect.isfunction(member)}
PUBLIC = {
    **{name: getattr(antiphon, name) for name in antiphon.__all__},
    **{
        f"{module.__name__.rpartition('.')[2]}.{name}": member
        for module in MODULES
        for name, member in vars(module).items()
        if not name.startswith("_") and name in getattr(module, "__all__", [name]) and made_to_be_called(member)
    },
    **{f"Encoder.{name}": member for name, member in METHODS.items() if not name.startswith("_")},
}
OPTIONS = doctest.ELLIPSIS | doctest.REPORT_NDIFF


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_ends_in_an_example_that_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = inspect.getdoc(PUBLIC[name])
    example = doctest.DocTestParser().get_doctest(text, {}, name, None, 0)
    assert example.examples, f"{name} has no example"
    assert text.rstrip().endswith((example.examples[-1].want or example.examples[-1].source).rstrip())
    told: list[str] = []
    failed = doctest.DocTestRunner(optionflags=OPTIONS).run(example, out=told.append).failed
    assert not failed, "".join(told)
