"""The verifier of the operator puzzle."""

from __future__ import annotations

import pytest

from rlsp_async.errors import DataError
from rlsp_async.verifying.ops import score

PROMPT = "1 1 3 4 -> 7 <think>"


@pytest.mark.parametrize(
    ("response", "status", "steps"),
    [
        ("1 * 1 1 * 3 3 + 4 7 ?= 7 ok </think> * * +", "correct", 1),
        ("1 + 1 2 + 3 5 + 4 9 ?= 7 x 1 * 1 1 * 3 3 + 4 7 ?= 7 ok </think> + + +", "wrong", 2),
        ("</think> * * +", "correct", 0),
        ("1 + 1 2 ?= 7 x 1 - 1", "unparsable", 1),
        ("x </think> * *", "unparsable", 1),
        ("x x </think> * * + +", "unparsable", 2),
        ("x </think> * * 7", "unparsable", 1),
        ("x </think>", "unparsable", 1),
        ("x </think> + + + </think> * * +", "correct", 1),
        ("", "unparsable", 0),
    ],
)
def test_verdicts(response: str, status: str, steps: float) -> None:
    verdict = score(PROMPT, response, "7")
    assert verdict.status == status
    assert verdict.parts == {
        "correct": float(status == "correct"),
        "format": float(status != "unparsable"),
        "search_steps": float(steps),
    }


def test_left_to_right_without_precedence_and_beyond_the_range() -> None:
    assert score("2 3 4 -> 20 <think>", "</think> + *", "20").status == "correct"
    assert score("6 6 6 6 -> 30 <think>", "</think> - - *", "30").status == "wrong"
    assert score("1 6 6 3 -> -8 <think>", "</think> - + -", "-2").status == "correct"


@pytest.mark.parametrize(
    ("prompt", "answer"), [("hello", "7"), ("1 2 -> 3", "three"), ("a b -> 3", "3"), ("-> 3", "3")]
)
def test_a_prompt_that_is_no_puzzle_is_a_fault_of_the_data(prompt: str, answer: str) -> None:
    with pytest.raises(DataError, match="not an operator puzzle"):
        score(prompt, "</think> +", answer)
