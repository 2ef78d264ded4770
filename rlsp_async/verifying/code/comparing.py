"""Whether the output of a program, or the result of a call, is the expected one.

    is_same_output("1.50 a \\n\\n", "1.5 a", 0.0)            # True
    is_same_value((1, 2), [1, 2], 0.0)                       # True: JSON has no tuples

Outputs are compared line by line, without blanks at the ends of lines and without empty lines at the end, and a line
word by word; two words that are decimal numbers are equal as numbers. Results are compared as JSON has them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,4})?")
_MAX_NUMBER_CHARS = 1000
_STATED = re.compile(
    r"(?:error|precision|toleran\w+|within|differ\w*|accura\w+|accepted if)[^.\n]{0,120}?"
    r"(?:10\s*\^?\s*\{?\s*[-\u2212\u2013]\s*\{?(?P<power>\d{1,2})|1e-(?P<exponent>\d{1,2})|(?P<decimal>0\.0+1)\b)",
    re.IGNORECASE,
)


def stated_tolerance(prompt: str) -> float:
    """The tolerance that a problem states ("an error of at most 10^-6"); 0 when it states none."""
    match = _STATED.search(prompt)
    if match is None:
        return 0.0
    if match["decimal"]:
        return float(match["decimal"])
    return float(f"1e-{match['power'] or match['exponent']}")


def is_same_output(actual: str, expected: str, tolerance: float) -> bool:
    """Whether a program has written what is expected."""
    ours, theirs = _lines(actual), _lines(expected)
    return len(ours) == len(theirs) and all(
        len(a) == len(b) and all(_is_same_word(x, y, tolerance) for x, y in zip(a, b, strict=True))
        for a, b in zip(ours, theirs, strict=True)
    )


def is_same_value(actual: Any, expected: Any, tolerance: float) -> bool:
    """Whether a function has returned what is expected, which comes from JSON."""
    if isinstance(expected, Mapping):
        if not isinstance(actual, Mapping) or len(actual) != len(expected):
            return False
        ours = {str(key) if not isinstance(key, str) else key: value for key, value in actual.items()}
        return all(
            str(key) in ours and is_same_value(ours[str(key)], value, tolerance) for key, value in expected.items()
        )
    if hasattr(actual, "tolist"):
        actual = actual.tolist()
    if isinstance(expected, list | tuple):
        return (
            isinstance(actual, list | tuple)
            and len(actual) == len(expected)
            and all(is_same_value(a, b, tolerance) for a, b in zip(actual, expected, strict=True))
        )
    if isinstance(actual, bool) or isinstance(expected, bool):
        return isinstance(actual, int | float) and bool(actual == expected)
    if isinstance(actual, float | int) and isinstance(expected, float | int):
        return (
            actual == expected or _is_close(actual, expected, tolerance) or (actual != actual and expected != expected)
        )
    return type(actual) is type(expected) and bool(actual == expected)


def _lines(text: str) -> list[list[str]]:
    lines = [line.split() for line in text.replace("\r\n", "\n").strip().split("\n")]
    return [] if lines == [[]] else lines


def _is_same_word(actual: str, expected: str, tolerance: float) -> bool:
    if actual == expected:
        return True
    if max(len(actual), len(expected)) > _MAX_NUMBER_CHARS:
        return False
    if not (_NUMBER.fullmatch(actual) and _NUMBER.fullmatch(expected)):
        return bool(tolerance) and actual.lower() == expected.lower() and actual.lower().lstrip("+-") in ("nan", "inf")
    if Decimal(actual) == Decimal(expected):
        return True
    return _is_close(float(actual), float(expected), tolerance)


def _is_close(actual: float, expected: float, tolerance: float) -> bool:
    if not tolerance:
        return False
    try:
        return math.isclose(actual, expected, rel_tol=tolerance, abs_tol=tolerance)
    except OverflowError:
        return False
