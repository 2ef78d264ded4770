"""Attempts of the puzzles, by their grammar."""

import pytest

from rlsp_async.rewards import grammar
from rlsp_async.tasks import ops

PROMPT = "1 1 3 4 -> 7 <think>"
FIRST, SECOND = "1 + 1 2 + 3 5 + 4 9 ?= 7 x", "1 * 1 1 * 3 3 + 4 7 ?= 7 ok"


def figures(found):
    return tuple(int(found[name]) for name in ("backtracks", "checks", "alternatives", "search_steps"))


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (f"{SECOND} </think> * * +", (0, 1, 0, 1)),
        (f"{FIRST} {SECOND} </think> * * +", (1, 2, 1, 2)),
        (f"{FIRST} {SECOND}", (1, 2, 1, 2)),
        (f"{FIRST} {FIRST} {FIRST} </think> + + +", (0, 1, 0, 1)),
        ("x x x ok ok </think> * * +", (0, 0, 0, 0)),
        ("+ + + ?= 7 x * * * ?= 7 x </think>", (0, 0, 0, 0)),
        ("1 + 1 2 + 3 5 + 4 9 ?= 8 x </think>", (0, 0, 0, 0)),
        ("1 + 1 2 + 3 5 + 4 9 ?= 7 perhaps", (0, 0, 0, 0)),
        ("2 + 2 4 + 3 7 + 4 9 ?= 7 x", (0, 0, 0, 0)),
        ("1 + 1 2 ?= 7 x", (0, 0, 0, 0)),
        (f"dull words {FIRST}", (0, 1, 0, 1)),
        (f"</think> + + + {FIRST}", (0, 0, 0, 0)),
        ("", (0, 0, 0, 0)),
    ],
)
def test_attempts_of_ops(response, expected):
    assert figures(grammar.count_attempts("ops", PROMPT, response, "7")) == expected


def test_every_attempt_of_the_teacher_is_counted():
    task = ops.load(ops.Config(), 0)
    for index in range(200):
        prompt, response = task.demonstration(index)
        words = response.split()
        found = grammar.count_attempts("ops", prompt.text, response, prompt.answer)
        assert found["search_steps"] == words.count("x") + words.count("ok")


def test_no_response_can_hold_more_attempts_than_there_are():
    rows = [f"1 {a} 1 0 {b} 3 0 {c} 4 0 ?= 7 x" for a in "+-*" for b in "+-*" for c in "+-*"]
    assert figures(grammar.count_attempts("ops", PROMPT, " ".join(rows * 5), "7")) == (26, 27, 26, 27)


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("30+100-93 = 37, not 23. 93 - (100-30) = 23.", (1, 2, 1, 2)),
        ("(30 + 100) - 93 = 37. (30+100)-93 = 37. 30 + 100 = 130. 130 - 93 = 37.", (0, 1, 0, 1)),
        ("93 \u2212 (100 \u2212 30) = 23", (0, 1, 0, 1)),
        ("30 100 93 = 23", (0, 0, 0, 0)),
        ("30 + 100 + 93 = ?", (0, 0, 0, 0)),
        ("30 + 100 + 93 + 93 = 5", (0, 0, 0, 0)),
        ("=" * 5000, (0, 0, 0, 0)),
        ("Wait, let me check.", (0, 0, 0, 0)),
    ],
)
def test_attempts_of_countdown(response, expected):
    assert figures(grammar.count_attempts("countdown", "", response, "30 93 100 -> 23")) == expected


def test_what_is_no_puzzle_has_no_grammar():
    assert grammar.count_attempts("math", "2 + 2", "4", "4") is None
    assert grammar.count_attempts("ops", "no puzzle", "x", "7") is None
    assert grammar.count_attempts("countdown", "", "1 + 2 = 3", "3") is None
