"""The parser of expressions: what it refuses, and that any text is read or refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlsp_async.verifying.math.evaluate import is_same_value
from rlsp_async.verifying.math.normalize import normalize_spelling
from rlsp_async.verifying.math.parse import UnreadableExpression, parse_expression
from tests.verifying.growth import grows_linearly


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
    with pytest.raises(UnreadableExpression):
        parse_expression(text)


@pytest.mark.parametrize("piece", ["1+", "(", "-", "x^", "\\frac{1}{", "1!"])
def test_a_long_text_is_refused_in_linear_time(piece: str) -> None:
    def parse(num: int) -> None:
        with pytest.raises(UnreadableExpression):
            parse_expression(piece * num)

    assert grows_linearly(parse, 100_000)


@given(st.text(alphabet="0123456789xyi+-*/^(){}[]!.,_\\\\ fracsqrt|", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        node = parse_expression(normalize_spelling(text))
        assert is_same_value(node, node)
    except UnreadableExpression:
        return
