"""One spelling for one thing, and plain numbers as people write them."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlsp_async.verifying.math.normalize import normalize_spelling, read_number


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("18", 18),
        ("-18", -18),
        ("+18", 18),
        ("18.", 18),
        ("18.0", 18),
        (".5", Fraction(1, 2)),
        ("007", 7),
        ("1,234,567", 1234567),
        ("$1,234.50", Fraction(2469, 2)),
        ("\\$5", 5),
        ("US$5", 5),
        ("\u20ac7", 7),
        ("1{,}000", 1000),
        ("18 apples", 18),
        ("18 dollars a day", 18),
        ("5 km/h", 5),
        ("12 sq. ft.", 12),
        ("3 cm^2", 3),
        ("90^\\circ", 90),
        ("50%", 50),
        ("50\\%", 50),
        ("50 percent", 50),
        ("**18**", 18),
        ("$18$", 18),
        ("18\\text{ miles}", 18),
        ("= 4", 4),
        ("1/2", Fraction(1, 2)),
        ("-3 / 4", Fraction(-3, 4)),
        ("2 1/2", Fraction(5, 2)),
        ("\\frac{1}{2}", Fraction(1, 2)),
        ("\\dfrac12", Fraction(1, 2)),
        ("-\\frac{3}{4}", Fraction(-3, 4)),
        ("2\\frac{1}{2}", Fraction(5, 2)),
        ("**18** eggs", 18),
        ("`18`", 18),
        ("3 million", 3_000_000),
        ("1.5 thousand dollars", 1500),
        ("2 dozen", 24),
        ("11,\\! 111", 11111),
    ],
)
def test_numbers(text: str, value: Fraction) -> None:
    assert read_number(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "3x",
        "3 x",
        "3\\pi",
        "2 pi",
        "5 or 6",
        "5, 6",
        "(5,6)",
        "1/0",
        "1,23",
        "12,34,567",
        "1e5",
        "2^3",
        "5!",
        "--5",
        ".",
        "1/2/3",
        "1 2",
        "18 a",
        "3 squared",
        "two",
        "1" * 300,
        "2 to 3",
        "10:30",
        "1.2.3",
        "3 half",
        "\\frac{1}{x}",
        "2*3",
        "9**9",
        "1_0",
        "**1**2",
    ],
)
def test_other_texts(text: str) -> None:
    assert read_number(text) is None


@given(st.integers(-(10**9), 10**9))
def test_an_integer_is_read_however_it_is_written(n: int) -> None:
    for text in (str(n), f"{n:,}", f"{n}.00", f"{n} eggs", f"\\${n}", f"{2 * n}/2", f"**{n}**"):
        assert read_number(text) == n, text


@given(st.text(max_size=210))
def test_any_text_is_read_or_refused(text: str) -> None:
    read_number(text)


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
    assert normalize_spelling(text) == spelled
