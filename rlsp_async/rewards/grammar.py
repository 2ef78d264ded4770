"""Search steps of puzzles whose attempts have a grammar: each distinct attempt is a step.

    ops        1 + 1 2 + 3 5 + 4 9 ?= 7 x     the prompt's numbers, operators and running values, `?=`, the target, x|ok
    countdown  (30 + 100) - 93 = 37           an expression over all the puzzle's numbers, `=`, a number

    search_steps, checks   distinct attempts (each is an evaluation that is compared with the target)
    backtracks             failed attempts after which another one is made
    alternatives           attempts after the first

Attempts are distinguished by their operators (ops) or their expression (countdown), so there are finitely many. Running
values are not recomputed: a wrong calculation is still an attempt.
"""

from __future__ import annotations

import re

MAX_EQUALS = 2_000
"""Number of signs of equality in a response that are read."""
MAX_EXPRESSION = 200
"""Largest length of an expression, in characters."""

_ALLOWED = "0123456789+-*/() "
_SPELLING = str.maketrans({"\u00d7": "*", "\u00f7": "/", "\u2212": "-", "\u22c5": "*", "[": "(", "]": ")"})
_RESULT = re.compile(r"\s{0,3}(-?\d{1,12}(?:\.\d{1,6})?)(?![\d+*/(])")
_NUMBER = re.compile(r"\d{1,12}")


def count_attempts(task: str, prompt: str, response: str, answer: str) -> dict[str, float] | None:
    """Counts the attempts of a response by the grammar of its task.

    Args:
        task: "ops", "countdown" or any other name.
        prompt: text of the prompt.
        response: text of the response.
        answer: the task's answer.

    Returns:
        "backtracks", "checks", "alternatives" and "search_steps"; None when the task has no grammar, or when the prompt
        is no puzzle of its kind.
    """
    if task == "ops":
        return _ops(prompt, response)
    return _countdown(response, answer) if task == "countdown" else None


def _ops(prompt: str, response: str) -> dict[str, float] | None:
    """Counts the attempts of `ops`; None when the prompt is no such puzzle."""
    left, arrow, right = prompt.partition("->")
    numbers, target = left.split(), right.split()[:1]
    if not arrow or not numbers or not target:
        return None
    thinking, closed, _ = response.rpartition("</think>")
    words = (thinking if closed else response).split()
    attempts: dict[str, bool] = {}
    begin = 0
    for at, word in enumerate(words):
        if word != "?=" or words[at + 1 : at + 2] != target or words[at + 2 : at + 3] not in (["x"], ["ok"]):
            continue
        # An attempt is n0 (op n r)...; what stands before an attempt over all numbers does not belong to it.
        row = words[max(begin, at - 3 * len(numbers) + 2) : at]
        if [row[0:1], *([n] for n in row[2::3])] == [[n] for n in numbers] and set(row[1::3]) <= set("+-*"):
            attempts.setdefault(" ".join(row[1::3]), words[at + 2] == "ok")
        begin = at + 3
    return _figures(list(attempts.values()))


def _countdown(response: str, answer: str) -> dict[str, float] | None:
    """Counts the attempts of `countdown`; None when the answer is not one of its puzzles."""
    left, arrow, target = answer.partition("->")
    numbers = sorted(left.split())
    if not arrow or not numbers:
        return None
    text = response.translate(_SPELLING)
    attempts: dict[str, bool] = {}
    at = -1
    for _ in range(MAX_EQUALS):
        at = text.find("=", at + 1)
        if at < 0:
            break
        head = text[max(0, at - MAX_EXPRESSION) : at]
        expression = head[len(head.rstrip(_ALLOWED)) :].replace(" ", "")
        result = _RESULT.match(text, at + 1)
        if result and sorted(_NUMBER.findall(expression)) == numbers and _num_operators(expression) >= len(numbers) - 1:
            attempts.setdefault(expression, result[1] == target.strip())
    return _figures(list(attempts.values()))


def _num_operators(expression: str) -> int:
    return sum(expression.count(operator) for operator in "+-*/")


def _figures(hits: list[bool]) -> dict[str, float]:
    """Counts of distinct attempts, in order; True: the attempt met the target."""
    num = float(len(hits))
    return {
        "backtracks": float(hits[:-1].count(False)),
        "checks": num,
        "alternatives": max(0.0, num - 1.0),
        "search_steps": num,
    }
