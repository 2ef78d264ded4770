r"""The atoms of running text: formulas, numbers, names, operators, brackets, words. One pass, linear time.

    [(atom.kind, atom.text) for atom in split_atoms("x = 1 000 (km)")]
        == [("name", "x"), ("relation", "="), ("number", "1 000"), ("opening", "("), ("word", "km"), ("closing", ")")]

A pair of dollar signs is a formula when it holds no words: "$3 and $5" are prices.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

SIGNS = "-+\u2212\u2010\u2011\u2012\u2013\ufe63\uff0d\uff0b"
"""Signs of a number, and hyphens that are written for one."""

CURRENCIES = "$\u20ac\u00a3\u00a5\u20b9\u20a9"
_VULGAR = "\u00bc-\u00be\u2150-\u215e\u2189"
_DIGITS = (
    r"\d{1,3}(?:[ \u00a0\u2009\u202f'\u2019]\d{3})+(?!\d)|\d{1,3}(?:\{,\}\d{3}|,\\!\s?\d{3}|\\[,; ]\d{3})+(?!\d)"
    r"|\d+(?:[.,:]\d+)*"
)
_NUMBER = rf"(?:{_DIGITS})(?:\.\d+)?(?:\u2026|\.\.\.)?[{_VULGAR}]?|\.\d+|[{_VULGAR}]"
_LETTERS = (
    r"A-Za-z\u00aa\u00ba\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u0370-\u03ff\u0400-\u052f\u0590-\u06ff\u0900-\u0dff"
)
_FUNCTIONS = (
    "sqrt|cbrt|arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|log|ln|lg|exp|gcd|lcm|min|max|pi|mod|inf"
)
_ATOM = re.compile(
    rf"""(?P<word>[{_LETTERS}]+(?:['\u2019-][{_LETTERS}]+)*)
    | (?P<number>{_NUMBER})
    | (?P<formula>\$\$(?:[^$\\]|\\.){{1,2000}}\$\$ | \\\[(?:(?!\\[\[\]]).){{1,2000}}\\\]
        | \\\((?:(?!\\[()]).){{1,2000}}\\\) | \$(?!\s?\$)(?:[^$\\\n]|\\.){{1,1000}}\$(?!\d)
        | \\begin\{{(?P<env>\w+)\*?\}}.{{0,2000}}?\\end\{{(?P=env)\*?\}})
    | (?P<words>\\(?:text\w*|mathrm|mbox|operatorname)\s?\{{[^{{}}]{{0,200}}\}})
    | (?P<infix>\\(?:times|cdot|div|pm|mp|leq?|geq?|neq?|lt|gt|approx|equiv|sim|in|cup|cap|to|ast|over|mid)(?![A-Za-z]))
    | (?P<size>\\(?:left|right|displaystyle|[bB]igg?[lr]?)(?![A-Za-z]) | \\[,;:!>\ ])
    | (?P<command>\\[A-Za-z]+\*?)
    | (?P<opening>[(\[{{\u27e8\uff08\u3010] | \\\{{)
    | (?P<closing>[)\]}}\u27e9\uff09\u3011] | \\\}})
    | (?P<postfix>\\?% | \u2030 | \u00b0\s?[CFK]?(?![{_LETTERS}]) | [\u00b2\u00b3\u00b9\u2070-\u209f]+
        | '+(?![{_LETTERS}]) | !(?=\s?[-+*/=^)]))
    | (?P<arrow>=>|->|\u2192|\u21d2|\\(?:implies|Rightarrow))
    | (?P<relation><= | >= | != | == | [=<>\u2264\u2265\u2260\u2248\u2261\u2208\u223c~\uff1d])
    | (?P<operator>\*\* | [*/^_|\u00d7\u22c5\u00b7\u00f7\u2215\u2044\u222a\u2229\u00b1:&{re.escape(SIGNS)}])
    | (?P<root>[\u221a\u221b])
    | (?P<newline>\n)
    | (?P<comma>[,\u3001\uff0c])
    | (?P<stop>[.!?;\u3002\uff01\uff1f\uff1b])
    | (?P<other>\S)""",
    re.VERBOSE | re.DOTALL,
)
_FUNCTION = re.compile(_FUNCTIONS)
_PROSE = re.compile(rf"(?<![A-Za-z\\])(?!(?:{_FUNCTIONS})(?![A-Za-z]))[A-Za-z]{{3,}}")
_NOT_PROSE = re.compile(r"\\(?:text\w*|mathrm|mbox|operatorname)\s?\{[^{}]*\}|\\[A-Za-z]+|[_^]\{[^{}]*\}")
_INVISIBLE = re.compile("[\u200b-\u200f\u2060-\u2064\ufeff\u00ad]")
_MARKS = re.compile(r"(?<![A-Za-z0-9)\]}])(?:\*\*|__)|(?:\*\*|__)(?![A-Za-z0-9(\[{\\])|`")


@dataclass(frozen=True, slots=True)
class Atom:
    """The smallest piece of a text, and where it begins and ends."""

    kind: str
    """A group of the pattern above; "name": one letter, or AB; "function": sin and others; "size": a currency, too."""
    text: str
    begin: int
    end: int


def remove_marks(text: str) -> str:
    """Removes what cannot be seen: zero-width characters, bold and code marks. `9**9` keeps its stars."""
    return _MARKS.sub("", _INVISIBLE.sub("", text))


def has_prose(text: str) -> bool:
    """Whether a text holds a word of three letters or more, outside of the commands of LaTeX."""
    return _PROSE.search(_NOT_PROSE.sub(" ", text)) is not None


def split_atoms(text: str) -> list[Atom]:
    """Splits a text into atoms; blanks are left out."""
    atoms: list[Atom] = []
    at = 0
    while (match := _ATOM.search(text, at)) is not None:
        kind, at = _kind(text, match), match.end()
        if kind == "other":
            at = match.start() + 1
            kind = "size" if text[match.start()] in CURRENCIES else kind
        atoms.append(Atom(kind, text[match.start() : at], match.start(), at))
    return atoms


def _kind(text: str, match: re.Match[str]) -> str:
    kind = match.lastgroup or "other"
    if match["formula"] is not None:
        return "formula" if _is_formula(text, match) else "other"
    if kind != "word":
        return kind
    if len(match[0]) == 1 or (len(match[0]) <= 3 and match[0].isascii() and match[0].isupper()):
        return "name"
    return "function" if _FUNCTION.fullmatch(match[0]) else "word"


def _is_formula(text: str, match: re.Match[str]) -> bool:
    """Whether a pair of dollar signs holds a formula, and not the words between two prices."""
    if not match[0].startswith("$") or match[0].startswith("$$"):
        return True
    is_price = text[match.start() - 1 : match.start()].isdigit() and not match[0][1].isalpha()
    return not is_price and not has_prose(match[0])
