"""Expressions that only math-verify can compare; expressions without a value are equal to nothing but themselves."""

from __future__ import annotations

import pytest

from rlsp_async.verifying.base import load_verifier
from rlsp_async.verifying.math import computer_algebra

UNDEFINED = [
    "\\infty^{\\infty}",
    "\\infty-\\infty",
    "\\infty\\cdot 0",
    "\\frac{\\infty}{\\infty}",
    "1^{\\infty}",
    "\\infty+7",
    "\\frac{7}{0}",
    "\\frac{0}{0}",
    "0^{-1}",
    "\\sqrt{\\infty-\\infty}",
]


@pytest.mark.parametrize("text", UNDEFINED)
def test_the_library_is_not_asked_about_what_has_no_value(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """sympy tries random points and keeps what it found: now and then it takes oo**oo - 7 for zero."""
    monkeypatch.setattr(computer_algebra, "verify", lambda *_, **__: True)
    assert computer_algebra.compare_latex("7", text) is not True
    assert load_verifier("math").judge("", f"\\boxed{{{text}}}", "7").status in ("wrong", "unparsable")


def test_infinity_itself_and_the_ends_of_intervals_keep_their_meaning() -> None:
    verifier = load_verifier("math")
    for gold, text in (
        ("\\infty", "\\infty"),
        ("-\\infty", "-\\infty"),
        ("[3,\\infty)", "[3, \\infty)"),
        ("(-\\infty,2)", "x<2"),
    ):
        assert verifier.judge("", f"\\boxed{{{text}}}", gold).status == "correct", (gold, text)
    assert verifier.judge("", "\\boxed{-\\infty}", "\\infty").status == "wrong"
    assert computer_algebra.compare_latex("\\infty", "\\infty") is True
    assert computer_algebra.compare_latex("-\\infty", "-\\infty") is True
