"""Boxes: which one counts, which belong together, and which are no answer."""

from __future__ import annotations

import pytest

from rlsp_async.verifying.boxes import last_boxes, strip_box
from tests.verifying.growth import grows_linearly


@pytest.mark.parametrize(
    ("text", "texts"),
    [
        ("\\boxed{5}", ("5",)),
        ("\\boxed{5}, $\\boxed{5}$", ("5",)),
        ("$\\boxed{5}$ and $\\boxed{5}$", ("5",)),
        ("\\boxed{(1,2)}\n\\boxed{(1,2)}", ("(1,2)",)),
        ("\\boxed{4} " * 1000, ("4",)),
        ("\\boxed{4} or \\boxed{3}", ("4", "3")),
        ("\\boxed{4} or maybe \\boxed{3}", ("4", "3")),
        ("either \\boxed{4} or \\boxed{3}.", ("4", "3")),
        ("\\boxed{2}; \\boxed{3}", ("2", "3")),
        ("\\boxed{2}, \\quad \\boxed{3}", ("2", "3")),
        ("\\boxed{2}\\quad\\boxed{3}", ("2", "3")),
        ("\\boxed{2} \\text{ and } \\boxed{3}", ("2", "3")),
        ("$\\boxed{2}$, $\\boxed{3}$, and $\\boxed{5}$", ("2", "3", "5")),
        ("\\[\\boxed{2}\\]\n\\[\\boxed{3}\\]", ("2", "3")),
        ("**\\boxed{2}** **\\boxed{3}**", ("2", "3")),
        ("\\boxed{2}. \\boxed{3}", ("2", "3")),
        ("(a) \\boxed{1}\n(b) \\boxed{2}", ("1", "2")),
        ("1. \\boxed{1}\n2. \\boxed{2}", ("1", "2")),
        ("$\\boxed{(3, 3)} \\text{ for part (a) and } \\boxed{(1, 1)}$", ("(3, 3)", "(1, 1)")),
        ("\\($y_1 = \\boxed{a} \\) and \\( y_2 = \\boxed{b} \\)", ("a", "b")),
        ("$x = \\boxed{2}, y = \\boxed{3}$", ("2", "3")),
        ("$\\alpha = \\boxed{2}, \\beta = \\boxed{3}$", ("2", "3")),
        ("\\boxed{2}\u548c\\boxed{3}", ("2", "3")),
        ("\\boxed{2}\u6216\\boxed{3}", ("2", "3")),
        ("\\boxed{2} und \\boxed{3}", ("2", "3")),
        ("\\boxed{1}, no wait, it is \\boxed{2}", ("2",)),
        ("\\boxed{1}; then \\boxed{2}", ("2",)),
        ("\\boxed{1}. So the answer is \\boxed{2}", ("2",)),
        ("\\boxed{1} no no no no no \\boxed{2}", ("2",)),
        ("\\boxed{12}, and then half of it is \\boxed{6}", ("6",)),
        ("\\boxed{1} not \\boxed{2}", ("2",)),
        ("\\boxed{1}" + "\n" * 90 + "\\boxed{2}", ("2",)),
        ("\\boxed{\\boxed{7}}", ("7",)),
        ("\\fbox{\\boxed{7}}", ("7",)),
        ("\\fbox{8}", ("8",)),
        ("\\framebox{8}", ("8",)),
        ("\\boxed 7 is it", ("7",)),
        ("$\\boxed7$", ("7",)),
        ("\\boxed {9}", ("9",)),
        ("\\boxed{\n 9\n}", ("9",)),
        ("boxed{9}", ("9",)),
        ("\x08oxed{9}", ("9",)),
        ("unboxed{9}", ()),
        ("\\boxedfoo{9}", ()),
        ("\\boxed{\\frac{1}{\\sqrt{2}}}", ("\\frac{1}{\\sqrt{2}}",)),
        ("\\boxed{\\{1, 2\\}}", ("\\{1, 2\\}",)),
        ("\\boxed{a\\}b}", ("a\\}b",)),
        ("} \\boxed{3} {", ("3",)),
        ("{ \\boxed{3}", ("3",)),
        (
            "$$\\boxed{\\begin{aligned} x &= 1 \\\\ y &= 2 \\end{aligned}}$$",
            ("\\begin{aligned} x &= 1 \\\\ y &= 2 \\end{aligned}",),
        ),
        ("\\boxed{4} ends before the other \\boxed{5}", ("5",)),
        ("\\boxed{4 is open, \\boxed{5} is not", ("5",)),
        ("\\boxed{}", ()),
        ("\\boxed{3} goes into \\boxed{}", ("3",)),
        ("no box", ()),
        ("", ()),
    ],
)
def test_contents(text: str, texts: tuple[str, ...]) -> None:
    boxes = last_boxes(text)
    assert (boxes.texts, boxes.problem) == (texts, "")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("\\boxed{5", "an unclosed box"),
        ("\\boxed{\\frac{1}{2}", "an unclosed box"),
        ("\\boxed{4} and \\boxed{5", "an unclosed box"),
        ("\\boxed{5\\}", "an unclosed box"),
        ("\\boxed{" + "1" * 4001 + "}", "limit: a box of more than 4000 characters"),
        ("\\boxed{7} \\boxed{" + "1+" * 9000 + "1}", "limit: a box of more than 4000 characters"),
        (" ".join(f"\\boxed{{{n}}}" for n in range(21)), "more than 20 boxes side by side"),
    ],
)
def test_a_box_that_cannot_be_read_is_a_problem_and_never_an_earlier_box(text: str, problem: str) -> None:
    boxes = last_boxes(text)
    assert (boxes.texts, boxes.problem) == ((), problem)


def test_twenty_boxes_are_read() -> None:
    assert len(last_boxes(" ".join(f"\\boxed{{{n}}}" for n in range(20))).texts) == 20


def test_where_they_stand() -> None:
    boxes = last_boxes("so \\boxed{2} and \\boxed{3}!")
    assert (boxes.begin, boxes.end) == (3, 26)


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("\\boxed{5}", "5"),
        ("\\boxed{ \\fbox{x} } m", "x"),
        ("5", "5"),
        ("a \\boxed{5}", "a \\boxed{5}"),
        ("\\boxed{5", "\\boxed{5"),
    ],
)
def test_strip(text: str, inside: str) -> None:
    assert strip_box(text) == inside


@pytest.mark.parametrize("piece", ["\\boxed{", "\\boxed{1}", "\\boxed ", "{", "}", "\\", "\\boxed{1}, "])
def test_megabytes_take_linear_time(piece: str) -> None:
    assert grows_linearly(lambda num: last_boxes(piece * (num // len(piece))), 6_000)
