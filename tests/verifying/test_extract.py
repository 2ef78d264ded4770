"""Where in a response the answer is found."""

from __future__ import annotations

import pytest

from rlsp_async.verifying.extract import ORDER, find_answer
from rlsp_async.verifying.sentences import strip_decoration
from tests.verifying.growth import grows_linearly


@pytest.mark.parametrize(
    ("response", "found"),
    [
        ("first \\boxed{1} then \\boxed{2}", "2"),
        ("\\boxed{\\frac{1}{\\sqrt{2}}} done", "\\frac{1}{\\sqrt{2}}"),
        ("\\boxed{a\\}b}", "a\\}b"),
        ("\\boxed 7", "7"),
        ("$\\boxed 7$", "7"),
        ("\\fbox{8}", "8"),
        ("<think>\\boxed{1}</think> 2", "2"),
        ("<think>\\boxed{1}</think>", None),
        ("<answer> 3 </answer> \\boxed{4}", "3"),
        ("<answer>\\boxed{3}</answer>", "3"),
        ("<answer>1</answer><answer>2</answer>", "2"),
        ("<answer>1", "1"),
        ("work\n#### 1,234\nbye", "1,234"),
        ("The answer is 5 apples. Really.", "5 apples"),
        ("the answer is 2.5. Or so", "2.5"),
        ("Final Answer: **42**", "42"),
        ("The roots are \\boxed{1} and \\boxed{2}.", "1, 2"),
        ("\\boxed{1} wait, then \\boxed{2}", "2"),
        ("The answer is:\n\\[\n42\n\\]", "42"),
        ("**Answer:** 42", "42"),
        ("**The final answer is: $42$**", "42"),
        ("The answer is that we need 12 apples.", "12"),
        ("so $x = 42$ holds", "x = 42"),
        ("x^2 + \\frac{1}{2}", "x^2 + \\frac{1}{2}"),
        ("costs $3 and then 4/5", "4/5"),
        ("5-3=2 (two)", "2"),
        ("it is -7", "-7"),
        ("x1 y2", None),
        ("nothing", None),
        ("", None),
        ("\\boxed{}", None),
        ("\\boxed{" + "1" * 5000 + "}", None),
        ("<answer>" + "1" * 4001 + "</answer>", None),
    ],
)
def test_find(response: str, found: str | None) -> None:
    assert find_answer(response) == found


def test_without_numbers() -> None:
    assert find_answer("the answer is 5 red balls in a box", numbers=False) == "5 red balls in a box"
    assert find_answer("it is 7", numbers=False) is None


@pytest.mark.parametrize("piece", ["\\boxed{", "<answer>", "{", "1,", "answer is ", "####", "</think>", "\\", "1 / "])
def test_megabytes_take_linear_time(piece: str) -> None:
    assert grows_linearly(lambda num: find_answer(piece * (num // len(piece))), 250_000)


@pytest.mark.parametrize("piece", [" ", "$ ", "\\qed ", "\n", "* "])
def test_decoration_takes_linear_time(piece: str) -> None:
    """Shorter than the end of a response that is searched, which bounds the tests above."""
    assert grows_linearly(lambda num: strip_decoration(piece * (num // len(piece)) + "x"), 5_000)


EVERYWHERE = "The answer is 4.\n\\boxed{2} <answer>1</answer>\n#### 3\n6"


@pytest.mark.parametrize(
    ("place", "found"),
    [("answer_tag", "1"), ("boxed", "2"), ("hashes", "3"), ("sentence", "4"), ("expression", None), ("last", "6")],
)
def test_one_place_alone_and_first(place: str, found: str | None) -> None:
    assert find_answer(EVERYWHERE, order=(place,)) == found
    assert find_answer(EVERYWHERE, order=(place, *ORDER)) == (found or "1")


def test_an_expression_alone() -> None:
    assert find_answer("x^2 + 1", order=("expression",)) == "x^2 + 1"
    assert find_answer("so x^2 + 1", order=("last",)) == "x^2 + 1"
    assert find_answer("x^2 + 1", numbers=False, order=("expression", "last")) is None


@pytest.mark.parametrize(
    "formula",
    ["\\left(1, +\\infty\\right)", "\\left(1, 5\\right)", "\\ln(2)", "\\sqrt(2)", "\\left[-1, 2\\right)", "\\cosh(1)"],
)
def test_a_formula_of_a_known_word_is_a_value_and_no_name(formula: str) -> None:
    for text in (f"$$ {formula} $$", f"${formula}$", f"so we get ${formula}$."):
        assert find_answer(text) == formula
    assert find_answer("so we get $f(x)$") is None and find_answer("so we get $\\left(x\\right)$") is None


def test_the_order_by_default_is_the_order_of_the_places() -> None:
    assert ORDER == ("answer_tag", "boxed", "hashes", "sentence", "expression", "last")
    left = EVERYWHERE
    for gone, found in (
        ("", "1"),
        ("<answer>1</answer>", "2"),
        ("\\boxed{2}", "3"),
        ("#### 3", "4"),
        ("The answer is 4.", "6"),
    ):
        left = left.replace(gone, "") if gone else left
        assert find_answer(left) == found
