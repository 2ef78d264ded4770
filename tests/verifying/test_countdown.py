"""The verifier of Countdown: exact arithmetic, own parser, caps."""

from __future__ import annotations

import ast
import operator
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlsp_async.errors import DataError
from rlsp_async.verifying.countdown import UnreadableArithmetic, evaluate_arithmetic, score

GOLD = "30 93 100 -> 23"


@pytest.mark.parametrize(
    ("expression", "status"),
    [
        ("93 + (30 - 100)", "correct"),
        ("93 + 30 - 100 = 23", "correct"),
        ("30-(100-93)", "correct"),
        ("\\left(93 + 30\\right) - 100", "correct"),
        ("-100 + 93 + 30", "correct"),
        ("30 + 93 \u2212 100", "correct"),
        ("93 + 30 + 100", "wrong"),
        ("23", "wrong"),
        ("93 - 70", "wrong"),
        ("93 + 30 - 100 + 30 - 30", "wrong"),
        ("93 / (30 - 30) + 100", "wrong"),
        ("30 93 100", "unparsable"),
        ("93 ** 30", "unparsable"),
        ("(93", "unparsable"),
        ("__import__('os').system('true')", "unparsable"),
        ("9" * 400, "unparsable"),
        ("1e9", "unparsable"),
        ("(" * 50 + "1" + ")" * 50, "unparsable"),
        ("-" * 60 + "1", "unparsable"),
        ("1+" * 200 + "1", "unparsable"),
    ],
)
def test_verdicts(expression: str, status: str) -> None:
    assert score("", f"so <answer>{expression}</answer>", GOLD).status == status
    assert score("", f"so \\boxed{{{expression}}}", GOLD).status == status


def test_fractions_are_exact() -> None:
    assert score("", "<answer>8 / (3 - 8 / 3)</answer>", "3 3 8 8 -> 24").status == "correct"


def test_no_answer_and_unusable_reference() -> None:
    assert score("", "I do not know", GOLD).status == "unparsable"
    with pytest.raises(DataError, match="is not 'numbers -> target'"):
        score("", "<answer>1</answer>", "23")


EXPRESSIONS = st.recursive(
    st.integers(0, 999).map(str),
    lambda e: st.one_of(st.tuples(e, st.sampled_from("+-*/"), e).map(" ".join), e.map("({})".format)),
    max_leaves=8,
)


SIGNS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


def exact(node: ast.expr) -> Fraction:
    """The value of what Python's own parser read."""
    if isinstance(node, ast.BinOp):
        return SIGNS[type(node.op)](exact(node.left), exact(node.right))
    return Fraction(ast.literal_eval(node))


@given(EXPRESSIONS)
def test_agrees_with_python(expression: str) -> None:
    try:
        wanted = exact(ast.parse(expression, mode="eval").body)
    except ZeroDivisionError:
        wanted = None
    try:
        assert evaluate_arithmetic(expression)[0] == wanted
    except UnreadableArithmetic:
        assert len(expression) > 300


@given(st.text(max_size=200))
def test_any_text_gets_a_verdict(text: str) -> None:
    assert score("", f"<answer>{text}</answer>", GOLD).status in ("correct", "wrong", "unparsable")
