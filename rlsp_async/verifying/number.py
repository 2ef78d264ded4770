"""Plain numbers as people write them, read exactly and without any algebra system.

    read_number("$1,234.50") == Fraction(2469, 2)     read_number("**18** apples") == 18     read_number("3x") is None

A currency sign, a unit in words, a per-cent sign, thousands marks, bold marks, dollar math and a final full stop are
put aside: "50%" is 50. "3 million" is 3000000. Fractions are `a/b`, `\\frac{a}{b}` and mixed `2 1/2`.
"""

from __future__ import annotations

import re
from fractions import Fraction

MAX_CHARS = 200
"""A longer text is no plain number."""

_INT = r"\d{1,3}(?:,\d{3})+|\d+"
_VALUE = re.compile(
    rf"(?P<sign>[-+])?\s?(?:(?P<whole>{_INT})\s)?(?P<top>{_INT})\s?/\s?(?P<bottom>{_INT})"
    rf"|(?P<sign2>[-+])?\s?(?P<int>{_INT})?(?:\.(?P<decimals>\d*))?"
)
_FRAC = re.compile(r"\\[dt]?frac\s?(?:\{\s?([-+]?\d+)\s?\}\s?\{\s?(\d+)\s?\}|(\d)(\d))")
_DROP = re.compile(
    r"(?<=,)\\!\s?|\\(?:[,;!: ]|left|right|displaystyle|quad)|[~]|\\?\$|[\u20ac\u00a3\u00a5]|US\$|\u00a0"
)
_MARK = re.compile(r"(?<![\w*])(\*{1,2}|_{1,2}|`)([^*_`]+)\1(?![\w*])")
_TEXT = re.compile(r"\\(?:text|mathrm|textbf|mathbf|operatorname)\s?\{([^{}]*)\}")
_UNIT = re.compile(
    r"\s?(?:\\?%|\^?\\circ|\u00b0|per\s?cent)?\s?"
    r"(?:((?:(?:[A-Za-z][A-Za-z.'/-]+|an?(?=\s))\s?){1,5})(?:\^?\{?[23]\}?)?)?\s?"
)
_SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}
_MATHS = frozenset(
    {
        "pi",
        "sqrt",
        "log",
        "ln",
        "sin",
        "cos",
        "tan",
        "exp",
        "or",
        "and",
        "to",
        "mod",
        "plus",
        "minus",
        "times",
        "over",
        "squared",
        "cubed",
        "i",
        "e",
        "x",
        "half",
        "halves",
        "third",
        "thirds",
        "quarter",
    }
)


def read_number(text: str) -> Fraction | None:
    """The value of a plain number with an optional unit; None for anything else."""
    if len(text) > MAX_CHARS:
        return None
    tidy = _FRAC.sub(r" \1\3/\2\4", _TEXT.sub(r" \1 ", _MARK.sub(r"\2", _DROP.sub("", text))).replace("{,}", ","))
    tidy = " ".join(tidy.split()).removeprefix("= ").rstrip(".")
    match = _VALUE.match(tidy)
    if match is None:
        return None
    value, scale = _value(match), _scale(tidy[match.end() :])
    return None if value is None or scale is None else value * scale


def _value(match: re.Match[str]) -> Fraction | None:
    part = match.groupdict()
    sign = -1 if "-" in (part["sign"] or part["sign2"] or "") else 1
    if part["bottom"]:
        bottom = _whole(part["bottom"])
        return sign * (_whole(part["whole"]) + Fraction(_whole(part["top"]), bottom)) if bottom else None
    decimals = part["decimals"] or ""
    if part["int"] is None and not decimals:
        return None
    return sign * (_whole(part["int"]) + Fraction(int(decimals or "0"), 10 ** len(decimals)))


def _whole(digits: str | None) -> int:
    return int((digits or "0").replace(",", ""))


def _scale(rest: str) -> int | None:
    """What the words after a number multiply it with; None when they are no unit."""
    unit = _UNIT.fullmatch(rest)
    if unit is None:
        return None
    words = (unit[1] or "").casefold().split()
    if _MATHS.intersection(words):
        return None
    return _SCALES.get(words[0], 1) if words else 1
