"""The verifier of mathematical answers, on its own reference answers and on hostile text."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest

from rlsp_async import config
from rlsp_async.errors import ConfigError, DataError
from rlsp_async.tasks.base import load_task
from rlsp_async.verifying.base import load_verifier
from rlsp_async.verifying.extract import ORDER
from rlsp_async.verifying.math import Config, computer_algebra, score

TASK = load_task(config.TaskConfig(name="gsm8k"), 0)
GOLDS = [TASK.prompt("test", i).answer for i in range(1319)]

REWRITES: dict[str, Callable[[str], str]] = {
    "box": lambda a: f"so \\boxed{{{a}}}.",
    "thousands": lambda a: f"#### {int(a):,}",
    "decimal": lambda a: f"The answer is {a}.0.",
    "unit": lambda a: f"\\boxed{{{a} apples}}",
    "currency": lambda a: f"<answer>${a}</answer>",
    "bold": lambda a: f"The final answer is **{a}**.",
    "sentence": lambda a: f"There are 3 of them, so the answer is {a} dollars a day.",
    "fraction": lambda a: f"\\boxed{{\\frac{{{2 * int(a)}}}{{2}}}}",
    "dollar math": lambda a: f"therefore $x={a}$",
    "after thinking": lambda a: f"<think>\\boxed{{99999999}}</think><answer>{a}</answer>",
    "text": lambda a: f"\\boxed{{{a}\\text{{ miles}}}}",
    "cents": lambda a: f"\\boxed{{\\${a}.00}}",
    "last number": lambda a: f"first 7, then 8, in the end {a}",
}
WRONG = ("{}1", "{}.5", "{}x", "{}\\pi", "({0},{0}1)", "{}/7")


@pytest.mark.parametrize("style", REWRITES)
def test_every_gsm8k_answer_is_correct_in_every_style(style: str) -> None:
    for gold in GOLDS:
        assert score("", REWRITES[style](gold), gold).status == "correct", gold


@pytest.mark.parametrize("pattern", WRONG)
def test_wrong_answers_are_refused(pattern: str) -> None:
    for gold in [g for g in GOLDS if g != "0"][:: 60 if "x" in pattern or "pi" in pattern or "(" in pattern else 1]:
        assert score("", f"\\boxed{{{pattern.format(gold)}}}", gold).status != "correct", gold


def test_every_answer_is_wrong_for_its_neighbour() -> None:
    for gold, other in itertools.pairwise(GOLDS):
        assert (score("", f"\\boxed{{{other}}}", gold).status == "correct") == (int(gold) == int(other))


@pytest.mark.parametrize(
    ("gold", "found"),
    [
        ("\\frac{\\sqrt{2}}{2}", "\\frac{1}{\\sqrt 2}"),
        ("x^2+2x+1", "(x+1)^2"),
        ("\\dfrac{3}{4}", "0.75"),
        ("\\sqrt{8}", "2\\sqrt{2}"),
        ("(3, \\frac{\\pi}{2})", "(3,\\pi/2)"),
        ("\\{1,2,3\\}", "\\{3,2,1\\}"),
        ("[2,5)", "[2,5)"),
        ("\\text{(B)}", "(B)"),
        ("2\\pi", "2 \\pi"),
        ("10^{3}", "1000"),
        ("\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}", "\\begin{pmatrix}1\\\\2\\end{pmatrix}"),
        ("\\boxed{5}", "5"),
        ("$7$", "7"),
        ("e^{2}", "e^2"),
        ("\\text{Evelyn}", "Evelyn"),
    ],
)
def test_equal_expressions(gold: str, found: str) -> None:
    assert score("", f"\\boxed{{{found}}}", gold).status == "correct"


@pytest.mark.parametrize(
    ("gold", "found"),
    [
        ("\\frac{1}{2}", "\\frac{1}{3}"),
        ("x+1", "x-1"),
        ("(1,2)", "(2,1)"),
        ("3", "\\{1,2,3\\}"),
        ("\\sqrt{2}", "1.414"),
        ("2", "2, 3"),
        ("23", "2*3"),
        ("12", "1 2"),
        ("99", "9**9"),
    ],
)
def test_different_expressions(gold: str, found: str) -> None:
    assert score("", f"\\boxed{{{found}}}", gold).status in ("wrong", "unparsable")


HOSTILE = [
    "9^{9^{9^9}}",
    "9**9**9**9",
    "(10^8)!",
    "100000000!",
    "2^{99999999}",
    "(((1+1)^{99})^{99})^{99}",
    "\\sum_{k=1}^{10^9} k",
    "{" * 500 + "1" + "}" * 500,
    "(" * 900 + "1" + ")" * 900,
    "\\frac{1}{" * 300 + "1" + "}" * 300,
    "1" * 3900,
    "1e999999999",
    "\\binom{10^9}{10^8}",
    "x+" * 1900 + "x",
    "\\sqrt{" * 200 + "2" + "}" * 200,
    "__import__('os').system('true')",
    "().__class__.__base__.__subclasses__()",
    "\\left" * 300,
    "\\" * 999,
    "\x00\x01",
    "\u202e7",
    "\\int_0^1 e^{x^2} dx",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_the_algebra_system_sees_nothing_large_of_a_hostile_answer_and_it_is_never_correct(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes before the algebra system is bounded: see test_parse.py and test_evaluate.py."""
    verify = computer_algebra.verify

    def verify_small(gold: list[object], found: list[object], **options: Any) -> Any:
        assert len(str(found)) < 30
        return verify(gold, found, **options)

    monkeypatch.setattr(computer_algebra, "verify", verify_small)
    for gold in ("7", "\\frac{x}{2}"):
        assert score("", f"\\boxed{{{text}}}", gold).status in ("wrong", "unparsable")


@pytest.mark.parametrize(
    "letters", ["\u0436\u00e9\u00df\u4e2d\u0664\u00b2\u2160 =5", "\\boxed{}$0123456789+-*/^_(),.% \nfracqrti=:;[]|!x"]
)
def test_nothing_that_a_model_may_write_is_a_fault_of_the_verifier(letters: str) -> None:
    """Letters that are not ASCII, as in "5 \u043a\u043c", and any mixture of the signs of mathematics."""
    draw = random.Random(0)
    for _ in range(1500):
        text = "".join(draw.choices(letters, k=draw.randrange(1, 60)))
        assert score("", f"The answer is \\boxed{{{text}}}", "72").status in (
            "correct",
            "wrong",
            "unparsable",
            "timeout",
        )
        assert score("", text, "72").status in ("correct", "wrong", "unparsable", "timeout")


def test_no_answer_and_a_limit_say_so() -> None:
    assert score("", "I give up", "7").detail == "no answer found"
    assert score("", "\\boxed{9^{9^9}}", "\\pi").detail == "limit: too large a power"


def test_unusable_reference_is_a_fault_of_the_data() -> None:
    for gold in ("9^{9^{9^9}}", ""):
        with pytest.raises(DataError, match="reference answer"):
            score("", "\\boxed{x+1}", gold)


def test_parts() -> None:
    assert score("", "\\boxed{7}", "7").parts == {"correct": 1.0, "format": 1.0}
    assert score("", "\\boxed{8}", "7").parts == {"correct": 0.0, "format": 1.0}
    assert score("", "", "7").parts == {"correct": 0.0, "format": 0.0}


# --- options -------------------------------------------------------------------------------------------------------


def status(response: str, answer: str, **options: object) -> str:
    return load_verifier("math", options).judge("", response, answer).status


def test_by_default_the_places_are_those_of_every_verifier() -> None:
    assert Config().extract == ORDER


def test_extract_decides_where_the_answer_may_stand() -> None:
    response = "The answer is 7.\nOr \\boxed{8}.\n#### 9"
    assert status(response, "8") == "correct"
    assert status(response, "9", extract=["hashes", "boxed"]) == "correct"
    assert status(response, "7", extract=["sentence"]) == "correct"
    assert status("it is 7", "7") == "correct"
    assert status("it is 7", "7", extract=["boxed"]) == "unparsable"


@pytest.mark.parametrize(
    ("gold", "response", "either", "literal"),
    [
        ("50", "50%", True, False),
        ("0.5", "50%", True, True),
        ("50\\%", "0.5", True, True),
        ("50\\%", "50", True, False),
        ("50\\%", "50%", True, True),
        ("1/2", "50 percent", True, True),
        ("50", "50 percent", True, False),
        ("50%", "0.50%", False, False),
        ("0", "0%", True, True),
        ("50%, 25%", "0.5, 0.25", True, True),
        ("50%, 25%", "50, 25", True, False),
    ],
)
def test_percent(gold: str, response: str, either: bool, literal: bool) -> None:
    assert (status(f"\\boxed{{{response}}}", gold) == "correct") == either
    assert (status(f"\\boxed{{{response}}}", gold, percent="literal") == "correct") == literal


def test_options_for_decimals_commas_units_and_thoughts() -> None:
    assert status("\\boxed{0.333333}", "1/3") == "correct"
    assert status("\\boxed{0.333333}", "1/3", decimal_places=7) == "wrong"
    assert status("\\boxed{0.33}", "1/3", decimal_places=2) == "correct"
    assert status("\\boxed{0.333333}", "1/3", decimal_places=0) == "wrong"
    assert status("\\boxed{2,5}", "2.5") == "correct"
    assert status("\\boxed{2,5}", "2.5", decimal_comma="never") == "wrong"
    assert status("\\boxed{2.5}", "2,5") == "wrong"
    assert status("\\boxed{2.5}", "2,5", decimal_comma="both") == "correct"
    assert status("\\boxed{5}", "5 km") == "correct"
    assert status("\\boxed{5}", "5 km", units="compare") == "wrong"
    assert status("\\boxed{5000\\text{ m}}", "5 km", units="compare") == "correct"
    assert status("<hm>\\boxed{8}</hm> 7", "7", thinking=[["<hm>", "</hm>"]]) == "correct"


@pytest.mark.parametrize(
    ("gold", "response", "ordered"),
    [
        ("1, 2", "2, 1", False),
        ("1, 2", "1, 2.0", True),
        ("1 and 2", "2 and 1", False),
        ("x, y, z", "x, z, y", False),
        ("\\{1, 2\\}", "\\{2, 1\\}", True),
        ("1 \\pm \\sqrt{2}", "1 - \\sqrt{2}, 1 + \\sqrt{2}", True),
        ("\\dot{x}, 2", "2, \\dot{x}", False),
        ("\\{1, 2\\}", "2, 1", True),
    ],
)
def test_ordered(gold: str, response: str, ordered: bool) -> None:
    assert (status(f"\\boxed{{{response}}}", gold, ordered=True) == "correct") == ordered


def test_without_options_lists_have_no_order() -> None:
    assert status("\\boxed{2, 1}", "1, 2") == "correct"
    assert status("\\boxed{(2, 1)}", "(1, 2)") == "wrong"


@pytest.mark.parametrize("options", [{"percent": "literal"}, {"ordered": True}, {"extract": ["boxed"]}])
def test_every_gsm8k_answer_is_correct_under_every_option(options: dict[str, object]) -> None:
    judge = load_verifier("math", options).judge
    for gold, other in itertools.pairwise(GOLDS[:300]):
        assert judge("", f"so \\boxed{{{gold}}}", gold).status == "correct"
        assert judge("", f"so \\boxed{{{other}}}", gold).status == ("correct" if gold == other else "wrong")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"extract": []}, "at least one place"),
        ({"extract": ["boxed", "boxed"]}, "none of them twice"),
        ({"extract": ["box"]}, "extract"),
        ({"percent": "both"}, "percent"),
        ({"orderd": True}, "ordered"),
        ({"decimal_places": -1}, "decimal_places"),
        ({"decimal_comma": "always"}, "decimal_comma"),
        ({"units": "strict"}, "units"),
    ],
)
def test_bad_options(options: dict[str, object], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        load_verifier("math", options)
