"""Numbers as people write them, and what may stand beside one."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlsp_async.verifying.math.literals import read_decimal_comma, read_literal
from rlsp_async.verifying.math.normalize import normalize_spelling
from rlsp_async.verifying.math.parse import TooLarge
from rlsp_async.verifying.math.units import conversion, read_unit


def read_number(text: str) -> Fraction | None:
    literal = read_literal(normalize_spelling(text))
    return literal.value if literal is not None else None


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
        ("1 234 567", 1234567),
        ("1'234'567", 1234567),
        ("12,34,567", 1234567),
        ("1.234.567", 1234567),
        ("1.234,56", Fraction(30864, 25)),
        ("1e5", 100_000),
        ("1.5E-3", Fraction(3, 2000)),
        ("1.5 x 10^3", 1500),
        ("1.5\\times 10^{-3}", Fraction(3, 2000)),
        ("1.5\u00d710\u207b\u00b3", Fraction(3, 2000)),
        ("2*10**3", 2000),
        ("10^{22}", 10**22),
        ("0.\\overline{3}", Fraction(1, 3)),
        ("0.1\\overline{6}", Fraction(1, 6)),
        ("0.(3)", Fraction(1, 3)),
        ("0.333...", Fraction(1, 3)),
        ("0.1666\\ldots", Fraction(1, 6)),
        ("33.\\overline{3}\\%", Fraction(100, 3)),
        ("12th", 12),
        ("12^{th}", 12),
        ("3^\\text{rd}", 3),
        ("21st place", 21),
        ("3\\,\\text{m}", 3),
        ("3\\,\\mathrm{m\\,s^{-2}}", 3),
        ("3 \\frac{\\text{km}}{\\text{h}}", 3),
        ("3\u00b0C", 3),
        ("3^\\circ\\text{C}", 3),
        ("3\\ \\Omega", 3),
        ("3\u5143", 3),
        ("3\u4e07\u5143", 30_000),
        ("3\ub9cc\uc6d0", 30_000),
        ("\u20a93", 3),
        ("70k dollars", 70_000),
        ("-$5", -5),
        ("minus 3", -3),
        ("\\approx 3", 3),
        ("about 3", 3),
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
        "3xy",
        "3st",
        "42j",
        "1e5x",
        "2e",
        "12 is not the answer",
        "12 \\text{ is not the answer}",
        "5 less than 7",
        "12\\text{ squared}",
        "1,2345",
        "1.234.56",
        "1 23",
        "3\u500d",
        "12st",
        "3 m",
        "70k",
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


def test_a_number_that_is_too_large_to_compute_says_so() -> None:
    for text in ("1e999999", "10^{9999}", "2\\cdot 10^{-500}"):
        with pytest.raises(TooLarge, match="a power of ten beyond 400"):
            read_literal(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2,5", Fraction(5, 2)),
        ("-2,5", Fraction(-5, 2)),
        ("2,74\\text{ dollars}", Fraction(137, 50)),
        ("1000,99", Fraction(100099, 100)),
        ("0,500", Fraction(1, 2)),
        ("1,234", None),
        ("2, 5", None),
        ("2,5,7", None),
        ("2,x", None),
    ],
)
def test_decimal_comma(text: str, value: Fraction | None) -> None:
    literal = read_decimal_comma(text)
    assert (literal.value if literal is not None else None) == value


@pytest.mark.parametrize(
    ("left", "right", "factor"),
    [
        (" cm", "\\text{ m}", 100),
        (" cm", "\\text{ cm}", 1),
        (" hours", " minutes", Fraction(1, 60)),
        (" km/h", "\\text{ m/s}", Fraction(18, 5)),
        (" cm^2", "\\text{ m}^2", 10_000),
        (" apples", " oranges", 1),
        (" apples", "\\text{ m}", 1),
        ("", "\\text{ m}", 1),
        (" cm", " cm^2", 1),
        (" hours", " metres", None),
        (" cents", " dollars", 100),
        ("^\\circ", "^\\circ C", 1),
    ],
)
def test_units_of_one_kind_are_converted(left: str, right: str, factor: Fraction | None) -> None:
    units = read_unit(left), read_unit(right)
    assert units[0] is not None and units[1] is not None
    assert conversion(units[0], units[1]) == factor
