"""Verifying an answer to the operator puzzle (`ops.py`), in the words that its tokenizer has.

    prompt         1 1 3 4 -> 7 : 1 * 1 * 3 + 4 check <think>
    demonstration  1 * 1 1 * 3 3 + 4 7 ?= 7 ok </think> ok

The answer is `ok` or `x`: whether the proposed row of operators gives the target. Demonstrations (`verify_share` of
`task.options`) are of an imperfect teacher, as those of the puzzle are: he works the row out as an attempt of the
puzzle is worked out, or, with probability `verify_guess`, says `ok` or `x` without a look. Half of the rows that he is
shown are right.
"""

from __future__ import annotations

import random

ANSWERS = {"correct": "ok", "wrong": "x"}
"""Status of the verdict on a row -> what a verification must say."""
MARK = "check"


def check_text(problem: str, row: str) -> str:
    """ "1 1 3 4 -> 7" and "* * +" as a prompt, the operators set between the numbers."""
    first, *numbers = problem.partition(" -> ")[0].split()
    set_out = " ".join([first, *(f"{op} {n}" for op, n in zip(row.split(), numbers, strict=True))])
    return f"{problem} : {set_out} {MARK} <think>"


def is_check(prompt: str) -> bool:
    """Whether a prompt asks to verify."""
    return prompt.split()[-2:] == [MARK, "<think>"]


def answer_row(response: str, num_operators: int) -> str | None:
    """The row of operators that a response answers with; None when there is none."""
    _, closed, tail = response.rpartition("</think>")
    row = tail.split()
    return " ".join(row) if closed and len(row) == num_operators and set(row) <= set("+-*") else None


def propose(leaves: list[tuple[str, int, str]], target: int, rng: random.Random) -> tuple[str, int, str]:
    """A legal row, right or wrong with equal chances, as far as there are both."""
    right = [leaf for leaf in leaves if leaf[1] == target]
    wrong = [leaf for leaf in leaves if leaf[1] != target]
    some = right if not wrong or rng.random() < 0.5 else wrong
    return some[int(rng.random() * len(some))]


def teach_check(way: str, value: int, target: int, rng: random.Random, p_guess: float) -> str:
    """The teacher's response: the row worked out and its verdict, or a guess."""
    if rng.random() < p_guess:
        return f"</think> {'ok' if rng.random() < 0.5 else 'x'}"
    word = "ok" if value == target else "x"
    return f"{way} ?= {target} {word} </think> {word}"
