"""The cases of `cases.jsonl`: what people write, with the right verdict, by kind; and the same with the sides swapped.

They are the neighbours of inputs on which checkers of mathematical answers are known to fail.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import pytest

from rlsp_async.errors import DataError
from rlsp_async.verifying.math import score

CASES: dict[str, list[tuple[str, str, bool]]] = defaultdict(list)
for _line in (Path(__file__).parent / "cases.jsonl").read_text(encoding="utf-8").splitlines():
    _case = json.loads(_line)
    CASES[_case["kind"]].append((_case["gold"], _case["answer"], _case["same"]))

ONE_WAY = {
    # A reference answer that is an equation with a compound left side asks for an equation; a response may say "a+b=7".
    *((f"{left}=7", "7") for left in ("a+b", "m+n", "x^2+y^2", "a^2+b^2 ", "a+b+c ", "\\frac{a}{b}", "\\sqrt{x}")),
    *((f"{left}7", "7") for left in ("a^2+b^2 = ", "a+b+c = ", "R^2 = ", "\\sigma^2=")),
    ("25", "x^2+y^2=25"),
    ("5", "2x+3y=5"),
    # A bare list may answer a pair in round brackets; a rising pair in brackets may be an interval and answers no list.
    ("(0,1)", "0,1"),
    # 2,5 in a response may be 2.5; in a reference answer it is a list, unless the option decimal_comma says otherwise.
    *((comma, comma.replace(",", ".")) for comma in ("3,75", "123,45", "0,5", "-2,5")),
    ("2.5", "2,5"),
    ("3,75 \u20ac", "3.75"),
    # A choice's label may be followed by its text in a response; a reference answer with the text asks for it.
    ("\\text{(B) }12", "B"),
    ("(B)\\ 12", "B"),
    ("B", "\\text{(B) }12"),
    ("Alice, Bob", "\\text{Alice, Bob}"),
}
"""Pairs whose verdict is another one with the sides swapped, and why."""


def is_correct(gold: str, answer: str) -> bool:
    try:
        return score("", f"So the result is $\\boxed{{{answer}}}$.", gold).status == "correct"
    except DataError:
        return False


@pytest.mark.parametrize("kind", CASES)
def test_cases(kind: str) -> None:
    failed = [case for case in CASES[kind] if is_correct(case[0], case[1]) != case[2]]
    assert not failed


@pytest.mark.parametrize("kind", CASES)
def test_the_verdict_is_the_same_with_the_sides_swapped(kind: str) -> None:
    """A text that cannot be read is a fault of the data as a reference answer, and never correct."""
    odd = {(answer, gold) for gold, answer, same in CASES[kind] if is_correct(answer, gold) != same}
    assert odd <= ONE_WAY
