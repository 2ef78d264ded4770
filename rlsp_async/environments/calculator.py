"""The environment `calculator`: a tool that computes. A turn without a call is the answer, and ends the rollout.

    <call> 3 4 7 + 1 0 9 </call>    ->    <result> 4 5 6 </result>

In the plain form digits may stand apart, as small models write them, and stand apart in the result. The tool knows
whole numbers, + - * and brackets. The claim has `calls`, the number of calls, and `failed_calls`, those that were no
sum; the answer itself is judged by the task's verifier.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from rlsp_async.config import Section, convert
from rlsp_async.config.ranges import Range
from rlsp_async.environments.base import End, Observation
from rlsp_async.environments.calls import ToolCall, find_call
from rlsp_async.messages import Prompt

VERSION = "1"
READS_FILES = False
EXPRESSION_CHARACTERS = 1_000
DIGITS = 50
"""Longest number that the tool reads or says."""
DEPTH = 50
"""Most brackets within brackets."""

_BETWEEN_DIGITS = re.compile(r"(?<=\d)\s+(?=\d)")
_TOKEN = re.compile(r"\s*(?:(\d+)|([-+*()]))")


class CalculatorConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of the tool."""

    wrong_by: Annotated[int, Range(ge=-(10**9), le=10**9)] = 0
    """What is added to each result: a tool that answers rubbish, as a control. 0: the tool is right."""


class Calculator:
    """One rollout."""

    tools = (
        {
            "type": "function",
            "function": {
                "name": "calculator",
                "description": "Computes a sum of whole numbers with + - * and brackets.",
                "parameters": {
                    "type": "object",
                    "properties": {"expression": {"type": "string"}},
                    "required": ["expression"],
                },
            },
        },
    )

    def __init__(self, cfg: CalculatorConfig) -> None:
        self._cfg = cfg
        self._num_calls = self._num_failed = 0

    def reset(self, prompt: Prompt, seed: int) -> Observation:
        """Nothing is said before the first turn."""
        return Observation(text="")

    def step(self, text: str) -> Observation | End:
        """Answers a call; a turn without one is the answer."""
        call = find_call(text)
        if call is None:
            return End(parts={"calls": float(self._num_calls), "failed_calls": float(self._num_failed)})
        self._num_calls += 1
        try:
            result = str(compute(_expression(call)) + self._cfg.wrong_by)
        except ValueError as e:
            self._num_failed += 1
            return Observation(text=call.answer("x" if call.is_plain else f"error: {e}"))
        return Observation(text=call.answer(" ".join(result) if call.is_plain else result))


def make(options: Mapping[str, Any]) -> Calculator:
    """Makes the environment of one rollout."""
    return Calculator(convert(dict(options), CalculatorConfig, "environment 'calculator'", "task.environment.options"))


def _expression(call: ToolCall) -> str:
    """What is to be computed. Raises ValueError."""
    if call.problem:
        raise ValueError(call.problem)
    if call.is_plain:
        return str(call.arguments["text"])
    expression = call.arguments.get("expression")
    if call.name != "calculator" or not isinstance(expression, str):
        raise ValueError('the tool is called {"name": "calculator", "arguments": {"expression": "..."}}')
    return expression


def compute(expression: str) -> int:
    """The value of an expression of whole numbers, + - * and brackets. Example: "3 4 + 2 * (1 - 5)" -> 26.

    Raises ValueError for anything else, and for numbers of more than DIGITS digits.
    """
    if len(expression) > EXPRESSION_CHARACTERS:
        raise ValueError(f"the expression is longer than {EXPRESSION_CHARACTERS} characters")
    reader = _Reader(_tokens(_BETWEEN_DIGITS.sub("", expression)))
    value = reader.sum(0)
    if reader.next is not None:
        raise ValueError(f"{reader.next!r} is not expected there")
    return value


def _tokens(text: str) -> list[str]:
    tokens, at, text = [], 0, text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or len(match[0].strip()) > DIGITS or not match[0].strip().isascii():
            raise ValueError("only whole numbers, + - * and brackets are computed")
        tokens.append(match[0].strip())
        at = match.end()
    return tokens


class _Reader:
    """Reads sum = product (+|- product)*, product = factor (* factor)*, factor = [-] number | ( sum )."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens[::-1]

    @property
    def next(self) -> str | None:
        return self._tokens[-1] if self._tokens else None

    def sum(self, depth: int) -> int:
        value = self._product(depth)
        while self.next in ("+", "-"):
            sign = 1 if self._tokens.pop() == "+" else -1
            value += sign * self._product(depth)
        return _short(value)

    def _product(self, depth: int) -> int:
        value = self._factor(depth)
        while self.next == "*":
            self._tokens.pop()
            value = _short(value * self._factor(depth))
        return value

    def _factor(self, depth: int) -> int:
        if depth > DEPTH:
            raise ValueError("too many brackets")
        token = self._tokens.pop() if self._tokens else ""
        if token == "-":
            return -self._factor(depth + 1)
        if token == "(":
            value = self.sum(depth + 1)
            if not self._tokens or self._tokens.pop() != ")":
                raise ValueError("a bracket is not closed")
            return value
        if not token.isdigit():
            raise ValueError("a number is missing")
        return int(token)


def _short(value: int) -> int:
    if abs(value) >= 10**DIGITS:
        raise ValueError(f"the result has more than {DIGITS} digits")
    return value
