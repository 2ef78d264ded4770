"""Verifier of Countdown: an arithmetic expression that uses each number exactly once and gives the target.

    score("...", "... <answer> (3 + 5) * 2 </answer>", "2 3 5 -> 16").status == "correct"

The small parser below reads the expression, in exact fractions; no interpreter ever sees it. An expression that holds
anything but whole numbers, + - * / (also written with times and division signs) and brackets is unparsable.

    sum := product (("+" | "-") product)*
    product := atom (("*" | "/") atom)*
    atom := number | "-" atom | "(" sum ")"
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction

from rlsp_async.errors import DataError
from rlsp_async.messages import Verdict
from rlsp_async.verifying.base import make_unparsable, make_verdict
from rlsp_async.verifying.extract import find_answer

VERSION = "1"
LANE = "fast"

MAX_CHARS = 300
MAX_DEPTH = 20
_TOKEN = re.compile(r"\s*(?:(\d{1,9})(?!\d)|([-+*/()]))")
_SPELLING = str.maketrans({"\u00d7": "*", "\u00f7": "/", "\u2212": "-", "\u22c5": "*", "[": "(", "]": ")", "$": " "})


class UnreadableArithmetic(ValueError):
    """The text is not an arithmetic expression."""


def reference_response(answer: str, demonstration: str) -> str:
    """The response of the task, for the check before a run: the reference answer is a problem and no solution."""
    return demonstration


def score(prompt: str, response: str, answer: str) -> Verdict:
    """Returns the verdict.

    Raises:
        DataError: the reference answer is not "numbers -> target".
    """
    numbers, target = _read_puzzle(answer)
    extracted = find_answer(response, numbers=False)
    if extracted is None:
        return make_unparsable("no answer found")
    try:
        value, used = evaluate_arithmetic(_plain_expression(extracted))
    except UnreadableArithmetic as e:
        return make_unparsable(str(e))
    return make_verdict(sorted(used) == numbers and value == target, extracted)


def evaluate_arithmetic(text: str) -> tuple[Fraction | None, list[int]]:
    """Evaluates an arithmetic expression.

    Returns:
        The value (None after a division by zero), and the numbers that it uses.

    Raises:
        UnreadableArithmetic: the text is not an arithmetic expression.
    """
    if len(text) > MAX_CHARS:
        raise UnreadableArithmetic(f"an expression of more than {MAX_CHARS} characters")
    tokens, used = _Tokens(text), list[int]()
    value = _parse_sum(tokens, used, 0)
    if tokens.next:
        raise UnreadableArithmetic(f"unexpected {tokens.next!r}")
    return value, used


class _Tokens:
    """The tokens of a text with one token of look-ahead; `next` is empty at the end."""

    def __init__(self, text: str) -> None:
        self._rest = self._split(text)
        self.next = next(self._rest, "")

    def take(self) -> str:
        token, self.next = self.next, next(self._rest, "")
        return token

    @staticmethod
    def _split(text: str) -> Iterator[str]:
        at, text = 0, text.rstrip()
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                raise UnreadableArithmetic(f"unexpected {text[at : at + 10]!r}")
            yield match[1] or match[2]
            at = match.end()


def _parse_sum(tokens: _Tokens, used: list[int], depth: int) -> Fraction | None:
    value = _parse_product(tokens, used, depth)
    while tokens.next in ("+", "-"):
        op, right = tokens.take(), _parse_product(tokens, used, depth)
        if value is not None:
            value = None if right is None else value + right if op == "+" else value - right
    return value


def _parse_product(tokens: _Tokens, used: list[int], depth: int) -> Fraction | None:
    value = _parse_atom(tokens, used, depth)
    while tokens.next in ("*", "/"):
        op, right = tokens.take(), _parse_atom(tokens, used, depth)
        if value is not None:
            value = _multiply_or_divide(value, op, right)
    return value


def _multiply_or_divide(value: Fraction, op: str, right: Fraction | None) -> Fraction | None:
    if right is None or (op == "/" and right == 0):
        return None
    return value * right if op == "*" else value / right


def _parse_atom(tokens: _Tokens, used: list[int], depth: int) -> Fraction | None:
    token = tokens.take()
    if token.isdigit():
        used.append(int(token))
        return Fraction(used[-1])
    if token not in ("(", "-"):
        raise UnreadableArithmetic(f"unexpected {token!r}" if token else "cut off")
    if depth >= MAX_DEPTH:
        raise UnreadableArithmetic("nested too deeply")
    if token == "-":
        negated = _parse_atom(tokens, used, depth + 1)
        return None if negated is None else -negated
    value = _parse_sum(tokens, used, depth + 1)
    if tokens.take() != ")":
        raise UnreadableArithmetic("a bracket is not closed")
    return value


def _plain_expression(extracted: str) -> str:
    """Removes the "= 16" that many responses add, and rewrites other spellings of the operators."""
    text = extracted.replace("\\times", "*").replace("\\cdot", "*").replace("\\div", "/")
    return text.replace("\\left", "").replace("\\right", "").translate(_SPELLING).partition("=")[0].strip()


def _read_puzzle(answer: str) -> tuple[list[int], Fraction]:
    left, _, right = answer.partition("->")
    try:
        return sorted(int(n) for n in left.split()), Fraction(int(right))
    except ValueError:
        raise DataError(f"reference answer {answer[:80]!r} is not 'numbers -> target'") from None
