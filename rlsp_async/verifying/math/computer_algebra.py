"""Equality of two mathematical expressions by math-verify. This is the only file that knows the library.

    compare_latex("\\frac{\\sqrt{2}}{2}", "\\frac{1}{\\sqrt 2}") is True

Both sides are read as LaTeX only. math-verify's reader of plain expressions is not used, because it ends in sympy's
`parse_expr`, which evaluates text. The library's own time-outs are off, because they fail outside the main thread; the
pool's deadline takes their place. Texts that could explode are refused before any expression is built.
"""

from __future__ import annotations

import logging
import re

from latex2sympy2_extended import NormalizationConfig
from math_verify import LatexExtractionConfig, parse, verify
from sympy import Add, Basic, Mul, Pow, S, preorder_traversal

logging.getLogger("math_verify").setLevel(logging.ERROR)  # else it warns that its time-outs are off

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
    (re.compile(r"(?:[-+]\s*){5}"), "a row of signs"),
    (re.compile(r"(?:\^[^^]{1,40}){20}"), "more than 20 powers"),
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


def find_refusal(text: str) -> str:
    """Returns why a text must not be given to the parser, or an empty string when it may."""
    if len(text) > MAX_CHARS:
        return f"longer than {MAX_CHARS} characters"
    if _nesting_depth(text) > MAX_DEPTH:
        return f"nested deeper than {MAX_DEPTH}"
    return next((why for pattern, why in _RISKY if pattern.search(text)), "")


def compare_latex(gold: str, extracted: str) -> bool | None:
    """Compares two LaTeX expressions. Call it only with texts that `find_refusal` accepts.

    Args:
        gold: the reference answer.
        extracted: the answer of the response.

    Returns:
        Whether they are equal; None when `extracted` cannot be read.

    Raises:
        ValueError: `gold` cannot be read.
    """
    golds = _parse_latex(gold)
    if not golds:
        raise ValueError("no mathematical expression")
    answers = _parse_latex(extracted)
    if not answers:
        return None
    if any(map(_is_undefined, (*golds, *answers))):
        return any(gold == answer for gold in golds for answer in answers if isinstance(answer, Basic))
    return bool(verify(golds, answers, strict=True, timeout_seconds=None))


def _parse_latex(text: str) -> list[object]:
    boxed = f"\\boxed{{{text}}}"
    return list(parse(boxed, extraction_config=_READERS, fallback_mode="no_fallback", parsing_timeout=None))


def _is_undefined(expression: object) -> bool:
    """Whether an expression calculates with infinity or divides by zero, so that it has no value.

    sympy's answer to "are these equal" then depends on what the process has evaluated before. Infinity alone, with a
    sign, or as the end of an interval has a meaning.
    """
    return isinstance(expression, Basic) and any(map(_has_no_value, preorder_traversal(expression)))


def _has_no_value(node: Basic) -> bool:
    if node in (S.NaN, S.ComplexInfinity):
        return True
    if isinstance(node, Pow) and node.base.is_zero and node.exp.is_positive is not True:
        return True
    if isinstance(node, Mul) and set(node.args) == {S.NegativeOne, S.Infinity}:
        return False
    return isinstance(node, Add | Mul | Pow) and bool({S.Infinity, S.NegativeInfinity} & set(node.args))


def _nesting_depth(text: str) -> int:
    depth = deepest = 0
    for char in text:
        depth += (char in "({[") - (char in ")}]")
        deepest = max(deepest, depth)
    return deepest
