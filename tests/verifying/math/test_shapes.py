"""Answers of every shape, equal and different, as the verifier `math` judges them."""

from __future__ import annotations

import pytest

from rlsp_async.verifying.math import score
from rlsp_async.verifying.math.compare import compare_answers
from rlsp_async.verifying.math.normalize import normalize_spelling
from rlsp_async.verifying.math.shapes import parse_shape

SAME = [
    ("\\frac{1}{2}", "0.5"),
    ("\\frac{1}{2}", "50\\%"),
    ("x=5", "5"),
    ("5", "x = 5"),
    ("(-\\infty,2)\\cup(3,\\infty)", "x<2 or x>3"),
    ("[1,2]", "1\\le x\\le 2"),
    ("\\{1,2\\}", "x=1 or x=2"),
    ("1,2", "2 and 1"),
    ("y=2x+3", "2x-y+3=0"),
    ("y=2x+3", "y = 3+2x"),
    ("2x+3y=6", "4x+6y=12"),
    ("3 \\pm 2\\sqrt{2}", "3+2\\sqrt2, 3-2\\sqrt2"),
    ("\\text{(D)}", "D"),
    ("D", "\\textbf{(D)}\\ 42"),
    ("\\text{Evelyn}", "evelyn"),
    ("\\text{4:30 p.m.}", "4:30 PM"),
    ("\\begin{pmatrix}1\\\\2\\end{pmatrix}", "(1,2)"),
    ("\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "[[1,2],[3,4]]"),
    ("x^2-1", "(x-1)(x+1)"),
    ("\\sqrt{2}", "sqrt(2)"),
    ("2\\pi", "2*pi"),
    ("\\pi", "3.14159265"),
    ("10!", "3628800"),
    ("12\\sqrt{13}\\text{ feet}", "12\u221a13"),
    ("5 \\text{ cm}", "5"),
    ("5", "5 cm^2"),
    ("(1,2)", "1<x<2"),
    ("4.5", "4 1/2"),
    ("4.5", "4\xbd"),
    ("1000", "1 000"),
    ("1000000", "1e6"),
    ("1.5\\times 10^{-3}", "0.0015"),
    ("\\emptyset", "\\{\\}"),
    ("\\mathbb{R}", "(-\\infty,\\infty)"),
    ("x \\ge 3", "[3,\\infty)"),
    ("\\frac{\\sqrt{3}}{3}", "\\frac{1}{\\sqrt{3}}"),
    ("a=1, b=2", "a=1,b=2"),
    ("f(x)=x^2", "x^2"),
    ("-1,3,3", "3,-1,3"),
    ("\\text{yes}", "Yes"),
    ("11010_2", "11010_{2}"),
    ("3:4", "3 : 4"),
    ("19 \\text{ and }43", "43, 19"),
    ("5", "five"),
    ("\\ln 2", "log(2)"),
    ("x^{10}", "x**10"),
    ("90^\\circ", "90 degrees"),
    ("\\text{A,B,E}", "A, B, E"),
    ("27", "\\frac{81}{3}"),
    ("2\\sqrt{3}i", "2i\\sqrt3"),
    ("C", "\\text{C}"),
    ("-\\frac{3}{4}", "\\frac{-3}{4}"),
    ("7", "007.0"),
    ("x\\in[1,2]", "[1,2]"),
    ("1", "\\{1\\}"),
    ("(3,4)", "3,4"),
    ("\\$18.90", "18.9"),
    ("\\text{June 5}", "june 5"),
    ("e^2", "e^{2}"),
    ("\\left(x-1\\right)^2+\\left(y+2\\right)^2=9", "(x-1)^2+(y+2)^2=9"),
    ("\\frac{3}{2}", "1.5 hours"),
    ("5.0%", "0.05"),
    ("\\binom{10}{3}", "120"),
    ("0", "-0"),
    ("1234", "1,234"),
    ("-80\\leq g(x)\\leq 82", "[-80,82]"),
    ("\\frac{1}{3}", "0.\\overline{3}"),
    ("\\text{infinitely many}", "infinitely many"),
    ("16\\pi\\text{ cm}^2", "16\\pi"),
    ("(2,3),(4,5)", "(4,5),(2,3)"),
    ("\\{(1,2),(3,4)\\}", "(1,2), (3,4)"),
    ("11 x", "11x"),
    ("\\angle ABC", "\\angle ABC"),
    ("\\cot x", "1/tan(x)"),
    ("x>3", "3<x"),
    ("AB=9, CD=4", "AB = 9 and CD = 4"),
    ("5", "$5$"),
    ("0.56 = 56\\%", "56%"),
    ("z=3", "3.0"),
    ("\\frac{x}{y}", "x/y"),
]
DIFFERENT = [
    ("2x+3y=6", "4x+6y=13"),
    ("\\text{(D)}", "(B)"),
    ("\\text{Evelyn}", "Bob"),
    ("\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "\\begin{bmatrix}1&2\\\\4&3\\end{bmatrix}"),
    ("\\pi", "3.14"),
    ("(1,2)", "(1,2]"),
    ("(1,2)", "[1,2]"),
    ("-1,3", "-1,3,3"),
    ("\\infty", "-\\infty"),
    ("\\text{no}", "yes"),
    ("11010_2", "11010_3"),
    ("0.333", "1/3"),
    ("3", "3 or 4"),
    ("x^2+y^2", "x^2 + z^2"),
    ("5", "5x"),
    ("\\text{odd}", "even"),
    ("k^2", "n^2"),
    ("12", "1,2"),
    ("1,2", "12"),
    ("2^{2005}", "2^{2005}+1"),
    ("x>3", "x\\ge3"),
]


@pytest.mark.parametrize(("gold", "found"), SAME)
def test_same(gold: str, found: str) -> None:
    assert score("", f"\\boxed{{{found}}}", gold).status == "correct"
    assert score("", f"<answer>{found}</answer>", gold).status == "correct"


@pytest.mark.parametrize(("gold", "found"), DIFFERENT)
def test_different(gold: str, found: str) -> None:
    assert score("", f"\\boxed{{{found}}}", gold).status in ("wrong", "unparsable")


@pytest.mark.parametrize("gold", sorted({gold for gold, _ in SAME}))
def test_every_gold_is_itself(gold: str) -> None:
    assert score("", f"\\boxed{{{gold}}}", gold).status == "correct"
    assert score("", f"The answer is ${gold}$.", gold).status == "correct"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("3", "scalar"),
        ("1, 2", "list"),
        ("(1, 2)", "tuple"),
        ("(1, 2]", "interval"),
        ("(1,\\infty)", "interval"),
        ("\\{1, 2\\}", "set"),
        ("x=3", "equation"),
        ("1<x<2", "inequality"),
        ("(1,2]\\cup[3,4)", "union"),
        ("x=1 or x=2", "list"),
        ("\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "matrix"),
        ("[[1,2],[3,4]]", "matrix"),
        ("1,234", "scalar"),
        ("(x+1)(x-1)", "scalar"),
    ],
)
def test_shapes(text: str, kind: str) -> None:
    assert parse_shape(normalize_spelling(text)).kind == kind


def test_none_when_a_part_cannot_be_read() -> None:
    assert compare_answers("\\oint x", "3") is None
