"""The parser and the values of expressions: notation, exactness, and caps that hold."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlsp_async.verifying.math.evaluate import evaluate, proportional, same
from rlsp_async.verifying.math.normalize import plain
from rlsp_async.verifying.math.parse import Unreadable, read


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
    assert same(read(left), read(right)) is is_same


def test_equations_up_to_a_factor() -> None:
    assert proportional(read("2x-y"), read("2y-4x")) and not proportional(read("2x-y"), read("2x+y"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "+",
        "1 2",
        "1+",
        "(1",
        "1)",
        "four",
        "\\oint",
        "x" * 1001,
        "(" * 30 + "1" + ")" * 30,
        "-" * 900,
        "1" + "!" * 900,
        "1+" * 400,
        "1" * 500,
        "1e9999",
    ],
)
def test_unreadable(text: str) -> None:
    with pytest.raises(Unreadable):
        read(text)


@pytest.mark.parametrize(
    "text", ["9^{9^{9^9}}", "(10^8)!", "\\binom{10^9}{5}", "\\exp(10^9)", "\\sin(10^{300})", "i^{10^{300}}"]
)
def test_what_would_explode_is_refused_at_once(text: str) -> None:
    start = time.process_time()
    with pytest.raises(Unreadable):
        evaluate(read(text))
    assert time.process_time() - start < 0.2


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("\uff11\uff12\uff13", "123"),
        ("3\u00bd", "3\\frac{1}{2}"),
        ("\u22125", "-5"),
        ("x\u00b2", "x^{2}"),
        ("\u221a2", "\\sqrt{2}"),
        ("**7**", "7"),
        ("$x\\leqslant 2$", "x\\le 2"),
        ("1\\,000", "1000"),
        ("10,\\!000", "10,000"),
        ("\\dfrac12", "\\frac12"),
    ],
)
def test_spelling(text: str, spelled: str) -> None:
    assert plain(text) == spelled


@given(st.text(alphabet="0123456789xyi+-*/^(){}[]!.,_\\\\ fracsqrt|", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        node = read(plain(text))
        assert same(node, node)
    except Unreadable:
        return
