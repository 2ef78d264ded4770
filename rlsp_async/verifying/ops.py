"""Verifier of the operator puzzle: do the operators after `</think>` give the target?

    score("1 1 3 4 -> 7 <think>", "... </think> * * +", "7")   correct: 1 * 1 * 3 + 4 = 7, from left to right

    score("1 1 3 4 -> 7 : 1 * 1 * 3 + 4 check <think>", "... </think> ok", "ok")    correct: a verification

The second form asks to verify a given row; the answer is what the verification says. Running values may leave 0..limit:
only the final value counts. "search_steps" is the number of attempts in the response that ended with a verdict of its
own (`x` or `ok`) before the answer.
"""

from __future__ import annotations

from rlsp_async.errors import DataError
from rlsp_async.messages import Verdict
from rlsp_async.tasks.ops import ANSWERS, answer_row, apply_operator, is_check
from rlsp_async.verifying.base import make_unparsable, make_verdict

VERSION = "1"
LANE = "fast"


def score(prompt: str, response: str, answer: str) -> Verdict:
    """Returns the verdict.

    Raises:
        DataError: the prompt is not an operator puzzle.
    """
    thinking, closed, tail = response.rpartition("</think>")
    words = (thinking if closed else response).split()
    steps = float(words.count("x") + words.count("ok"))
    if is_check(prompt):
        return _judge_verification(tail.strip() if closed else "", answer, steps)
    numbers, target = _read_puzzle(prompt, answer)
    if not closed:
        return make_unparsable("no </think>", search_steps=steps)
    row = answer_row(response, len(numbers) - 1)
    if row is None:
        return make_unparsable(f"not {len(numbers) - 1} operators", search_steps=steps)
    value = numbers[0]
    for op, n in zip(row.split(), numbers[1:], strict=True):
        value = apply_operator(op, value, n)
    return make_verdict(value == target, row, search_steps=steps)


def _judge_verification(given: str, answer: str, steps: float) -> Verdict:
    if answer not in ANSWERS.values():
        raise DataError(f"a verification is answered by {' or '.join(ANSWERS.values())}, not by {answer[:20]!r}")
    if given not in ANSWERS.values():
        return make_unparsable("neither ok nor x after </think>", search_steps=steps)
    return make_verdict(given == answer, given, search_steps=steps)


def _read_puzzle(prompt: str, answer: str) -> tuple[list[int], int]:
    left, arrow, _ = prompt.partition("->")
    try:
        numbers, target = [int(n) for n in left.split()], int(answer)
    except ValueError:
        numbers, target = [], 0
    if not arrow or not numbers:
        raise DataError(f"not an operator puzzle: {prompt[:80]!r} with answer {answer[:20]!r}")
    return numbers, target
