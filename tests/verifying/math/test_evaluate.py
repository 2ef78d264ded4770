"""The values of expressions: exactness, and caps that hold."""

from __future__ import annotations

import math

import pytest

from rlsp_async.verifying.math.evaluate import CONTEXT, evaluate_expression, is_proportional, is_same_value
from rlsp_async.verifying.math.parse import UnreadableExpression, parse_expression


@pytest.mark.parametrize(
    ("left", "right", "is_same"),
    [
        ("2^{2005}", "2^{2005}", True),
        ("2^{2005}", "2^{2005}+1", False),
        ("x^{200}+1", "x^{200}+2", False),
        ("|x|", "x", False),
        ("\\sqrt{x^2}", "|x|", True),
        ("\\sqrt[3]{-8}", "-2", True),
        ("\\sin 30^\\circ", "0.5", True),
        ("\\sin^2 x+\\cos^2 x", "1", True),
        ("e^{i\\pi}", "-1", True),
        ("\\log_2 8", "3", True),
        ("10!", "3628800", True),
        ("1/2x", "x/2", True),
        ("2 sin(x) cos(x)", "\\sin 2x", True),
        ("\\sqrt2", "1.4142136", True),
        ("\\sqrt2", "1.41421", False),
        ("1.4142135", "1.4142136", False),
        ("x_1", "x_2", False),
    ],
)
def test_values(left: str, right: str, is_same: bool) -> None:
    assert is_same_value(parse_expression(left), parse_expression(right)) is is_same


def test_equations_up_to_a_factor() -> None:
    assert is_proportional(parse_expression("2x-y"), parse_expression("2y-4x")) and not is_proportional(
        parse_expression("2x-y"), parse_expression("2x+y")
    )


@pytest.mark.parametrize(
    "text", ["9^{9^{9^9}}", "(10^8)!", "\\binom{10^9}{5}", "\\exp(10^9)", "\\sin(10^{300})", "i^{10^{300}}"]
)
def test_what_would_explode_is_refused_before_it_is_computed(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("computed")

    for module, name in (
        (math, "factorial"),
        (math, "comb"),
        *((CONTEXT, f) for f in ("power", "exp", "sin")),
    ):
        monkeypatch.setattr(module, name, refuse)
    with pytest.raises(UnreadableExpression):
        evaluate_expression(parse_expression(text))
