"""Equality of two mathematical expressions, by math-verify: the one file that knows it.

    equal("\\frac{\\sqrt{2}}{2}", "\\frac{1}{\\sqrt 2}") is True

Both sides are read as LaTeX only: math-verify's plain-expression reader ends in sympy's `parse_expr`, which evaluates
text, and is not used. Its alarms are off (they fail outside the main thread); the pool's deadline is the alarm. Texts
that could explode are refused before any expression is built.
"""

from __future__ import annotations

import logging
import re

from latex2sympy2_extended import NormalizationConfig
from math_verify import LatexExtractionConfig, parse, verify

logging.getLogger("math_verify").setLevel(logging.ERROR)  # else it warns of the missing alarms

MAX_CHARS = 1_000
MAX_DEPTH = 12
MAX_DIGITS = 60
MAX_EXPONENT = 999

_RISKY = (
    (re.compile(rf"\d{{{MAX_DIGITS + 1}}}"), f"a number of more than {MAX_DIGITS} digits"),
    (re.compile(r"(?:\^|\*\*)\s*(?:\{\s*)?[-+(]*\s*\d{4}"), f"an exponent above {MAX_EXPONENT}"),
    (re.compile(r"(?:\^|\*\*)[^\s\w]*\w+[^\s\w^]*(?:\^|\*\*)"), "a tower of exponents"),
    (re.compile(r"[\d)}]\s*!"), "a factorial"),
    (re.compile(r"(?:\|\s*){5}"), "a row of bars"),
    (re.compile(r"\\(?:sum|prod|int|lim|iint|oint|binom|dbinom|tbinom|Gamma|gamma|zeta)(?![a-z])"), "an operator"),
)
_READERS = (
    LatexExtractionConfig(
        try_extract_without_anchor=False,
        boxed_match_priority=0,
        normalization_config=NormalizationConfig(
            basic_latex=True, units=True, malformed_operators=True, nits=True, boxed="all"
        ),
    ),
)


def refusal(text: str) -> str:
    """Why a text is not given to the parser; empty when it may be."""
    if len(text) > MAX_CHARS:
        return f"longer than {MAX_CHARS} characters"
    if _depth(text) > MAX_DEPTH:
        return f"nested deeper than {MAX_DEPTH}"
    return next((why for pattern, why in _RISKY if pattern.search(text)), "")


def equal(gold: str, found: str) -> bool | None:
    """Whether two LaTeX expressions are the same; None when `found` cannot be read.

    Raises ValueError when `gold` cannot be read. Both must have passed `refusal`.
    """
    golds = _read(gold)
    if not golds:
        raise ValueError("no mathematical expression")
    answers = _read(found)
    if not answers:
        return None
    return bool(verify(golds, answers, strict=True, timeout_seconds=None))


def _read(text: str) -> list[object]:
    boxed = f"\\boxed{{{text}}}"
    return list(parse(boxed, extraction_config=_READERS, fallback_mode="no_fallback", parsing_timeout=None))


def _depth(text: str) -> int:
    depth = deepest = 0
    for char in text:
        depth += (char in "({[") - (char in ")}]")
        deepest = max(deepest, depth)
    return deepest
