r"""The values in running text: numbers, expressions and formulas, each whole or not at all.

    [value.text for value in find_values("5+8, the area is 5 cm")] == ["5+8", "5"]
    [value.text for value in find_values("the point is (3, 4)")] == ["(3, 4)"]
    [value.text for value in find_values("it is x-2")] == ["x-2"]

Each run of a text (`runs`) is one value. A number in a run is never a value alone, so that the last number of "it is
x-2" is not 2. What words around it do to a value is kept with it: "not 5" is negated, "step 5" is a label; "5 million",
"3 out of 5", "5 hours 30 minutes" and "2, 3 and 5" are one value each.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from rlsp_async.verifying.atoms import SIGNS
from rlsp_async.verifying.runs import INFIX, AtomRun, find_runs


@dataclass(frozen=True, slots=True)
class Value:
    """A number, an expression or a formula in a text. `begin` and `end` are its place."""

    text: str
    """As written, but for words that are signs: "minus 3" is "-3", "2 dollars and 5 cents" is "2.05"."""
    begin: int
    end: int
    is_name: bool = False
    """It is only the name of something: x, f(x), H2."""
    is_label: bool = False
    """It numbers something: step 3, the 2 of a list."""
    is_negated: bool = False
    """The text says that this is not it."""
    in_remark: bool = False
    """It stands in a bracket with words."""


def find_values(text: str) -> list[Value]:
    """Returns the values of a text in their order, also those that are only names, labels, or negated."""
    markers = _list_markers(text)
    values: list[Value] = []
    for run in find_runs(text):
        value = _read_run(text, run)
        if value is not None and (not values or value.begin >= values[-1].end):
            values.append(_in_context(text, _with_tail(text, value), markers))
    return _merge_lists(text, _merge_quantities(text, values))


# --- from a run to a value -------------------------------------------------------------------------------------------

_SIZE = re.compile(r"\\(?:left|right|[bB]igg?[lr]?)(?![A-Za-z])\s?")
_NAMED_VALUES = r"pi|infty|emptyset|varnothing|sqrt|cbrt|(?:arc)?(?:sin|cos|tan)h?|log|ln|lg|exp|gcd|lcm|min|max"
"""Words that are a value, or make one of what follows, and never the name of something."""
_NAME = re.compile(
    rf"[$\\(\[\s]*(?!\\?(?:{_NAMED_VALUES})(?![A-Za-z]))\\?[A-Za-z\u0370-\u03bf\u03c1-\u03ff]{{1,12}}"
    r"(?:_\{?\w{1,5}\}?)?\d*'*(?:\s?\([^()=]{0,20}\))?[$\\)\]\s.]*"
)
_LONE_GROUP = re.compile(r"(?:\(|\[|\\?\{)\s*([^\s,;|:()\[\]{}]+)\s*(?:\)|\]|\\?\})")
_FIGURE = re.compile(
    r"\d|[\u00bc-\u00be\u2150-\u215e\u221a\u03c0]|\\(?:pi|sqrt|frac|infty|emptyset|varnothing)|[-+*/^=<>]"
)


def _read_run(text: str, run: AtomRun) -> Value | None:
    atoms = list(run.atoms)
    if atoms[0].kind == "identifier":
        return None
    while atoms and atoms[-1].kind in INFIX:
        atoms.pop()
    while atoms and atoms[0].kind in INFIX and atoms[0].text not in SIGNS:
        atoms.pop(0)
    if not atoms:
        return None
    begin, end = atoms[0].begin, atoms[-1].end
    shown = text[begin:end]
    if atoms[0].kind == "word":
        shown = "-" + text[atoms[0].end : end].strip()
    if lone := (_LONE_GROUP.fullmatch(shown) if len(atoms) == 1 else None):
        shown = lone[1]
    is_name = bool(_NAME.fullmatch(_SIZE.sub("", shown)))
    if not is_name and not _FIGURE.search(shown):
        return None
    return Value(_last_side(shown), begin, end, is_name=is_name, in_remark=run.in_remark)


def _last_side(shown: str) -> str:
    """The right side of a sum that was worked out, as in 5 + 8 = 13; anything else is returned unchanged."""
    if "$" in shown or "\\" in shown:
        return shown
    left, equals, right = shown.rpartition("=")
    return right.strip() if equals and not re.search(r"[^\W\d_]", left) and left[-1:] not in "<>!" else shown


# --- what stands around a value --------------------------------------------------------------------------------------

_PLAIN_END = re.compile(r"\d[$)]*$|[\u00bc-\u00be\u2150-\u215e]$")
_POWER_OF_UNIT = re.compile(
    r"[ \u00a0]?(?P<unit>[mscgNJVA]|[A-Za-z\u03bc]{2,6})"
    r"(?:\^\{?(?P<power>-?[1-9])\}?|(?P<raised>[\u00b2\u00b3])|(?P<plain>[23]))"
    r"(?![\w^])"
)
_SCALE = re.compile(
    r"[ \u00a0-]?(?:hundred|thousand|million|billion|trillion|dozen|per\s?cent|bn|mn"
    r"|[\u4e07\u4ebf\u5343\u767e])(?![A-Za-z])",
    re.IGNORECASE,
)
_THOUSANDS = re.compile(r"\d[\d,.]*k")
_POWER_WORDS = {"squared": "^2", "cubed": "^3"}
_FRACTION_WORDS = {"half": "1/2", "third": "1/3", "quarter": "1/4"}
_AFTER = re.compile(
    r"\s(?P<power>squared|cubed)\b|\sand\s(?:an?|one)[\s-](?P<fraction>half|third|quarter)\b|\s(?P<part>halves|thirds|quarters|"
    r"fourths|fifths|sixths|eighths|tenths|factorial)\b",
    re.IGNORECASE,
)
_NOT_BEFORE = re.compile(
    r"(?:\b(?:not|never|cannot|rather\s+than|instead\s+of|except|other\s+than|neither|nor|nicht|kein|pas|niet)|n['\u2019]t"
    r"|\u4e0d\u662f|\u4e26\u975e|\u5e76\u975e|\u4e0d\u7b49\u4e8e)\s*"
    r"(?:(?:be|been|equal|equals|to|the|a|an|just|value|number|simply|option|choice|answer)\s+){0,3}[$*(]{0,3}$",
    re.IGNORECASE,
)
_NOT_AFTER = re.compile(
    r"[$*)]{0,3}\s*(?:[A-Za-z]+\s+){0,2}?(?:(?:is|was|are|were|would\s+be|seems?|looks?|must\s+be|has\s+to\s+be)\s+(?:clearly\s+|obviously\s+|thus\s+|therefore\s+"
    r"|definitely\s+|also\s+)?(?:not|never|wrong|incorrect|too|impossible|false|invalid|ruled\s+out|excluded|n't)|isn['\u2019]?t|wasn['\u2019]?t|aren['\u2019]?t"
    r"|can\s?not|can['\u2019]t|doesn['\u2019]t|does\s+not|do\s+not|don['\u2019]t|won['\u2019]t|fails?\b|\u4e0d\u662f|\u4e0d\u5bf9|\u4e0d\u6b63\u786e)",
    re.IGNORECASE,
)
_LABEL = re.compile(
    r"\b(?:steps?|cases?|parts?|figures?|fig\.|eq\.|equations?|theorem|lemma|section|chapter|exercise|example|problem"
    r"|question|method|attempt|approach|iteration|stage|phase|round|page|line|row|no\.|version|v)\s*[#(]?$|\u7b2c\s*$",
    re.IGNORECASE,
)
_MARKER = re.compile(r"(?:^|\n)[ \t]{0,8}(?:[-*#>][ \t]+){0,2}\(?(\d{1,3})[.)](?=[ \t]+\S)")
_WINDOW = 60


def _with_tail(text: str, value: Value) -> Value:
    """The value with the words behind it that belong to it: a scale, a unit with a power, "squared", "and a half"."""
    if _THOUSANDS.fullmatch(value.text):
        return replace(value, text=value.text[:-1] + " thousand")
    if value.is_name or not _PLAIN_END.search(value.text):
        return value
    behind = text[value.end : value.end + _WINDOW]
    if match := _POWER_OF_UNIT.match(behind):
        power = match["power"] or match["plain"] or {"\u00b2": "2", "\u00b3": "3"}[match["raised"]]
        shown = f"{value.text} \\text{{ {match['unit']}}}^{{{power}}}"
        return replace(value, text=shown, end=value.end + match.end())
    if match := _SCALE.match(behind):
        return replace(value, text=value.text + match[0], end=value.end + match.end())
    if match := _AFTER.match(behind):
        if match["power"]:
            shown = f"({value.text}){_POWER_WORDS[match['power'].lower()]}"
        elif match["fraction"] and value.text.isdecimal():
            shown = f"{value.text} {_FRACTION_WORDS[match['fraction'].lower()]}"
        else:
            shown = value.text + match[0]
        return replace(value, text=shown, end=value.end + match.end())
    return value


def _in_context(text: str, value: Value, markers: frozenset[int]) -> Value:
    """The value with what the words around it say of it."""
    before, behind = text[max(0, value.begin - _WINDOW) : value.begin], text[value.end : value.end + _WINDOW]
    return replace(
        value,
        is_label=value.begin in markers or _LABEL.search(before) is not None,
        is_negated=_NOT_BEFORE.search(before) is not None or _NOT_AFTER.match(behind) is not None,
    )


def _list_markers(text: str) -> frozenset[int]:
    """Where the numbers of a numbered list stand: 1 at the begin of a line, 2 behind it, and so on."""
    found: set[int] = set()
    last = 0
    for match in _MARKER.finditer(text):
        number = int(match[1])
        if number in (1, last + 1):
            found.add(match.start(1))
            last = number
    return frozenset(found)


# --- several numbers that are one value ------------------------------------------------------------------------------

_MEASURE = (
    "hours?|hrs?|h|minutes?|mins?|seconds?|secs?|days?|weeks?|months?|years?|feet|foot|ft|inches|inch|in|yards?|miles?|pounds?|lbs?"
    "|ounces?|oz|dollars?|cents?|euros?|meters?|metres?|m|cm|km|kg|kilograms?|grams?|g|degrees?|gallons?|quarts?|cups?|quarters?|dimes?"
)
_BETWEEN_MEASURES = re.compile(rf"\s?(?P<unit>{_MEASURE})\s*,?\s*(?:and\s+)?", re.IGNORECASE)
_BETWEEN_NOUNS = re.compile(r"\s?(?P<unit>[A-Za-z]{3,20})(?:\s+and\s+|\s*[,;]\s*(?:and\s+)?)")
_BETWEEN_WHOLES = re.compile(r"(?P<unit>)(?:\s+and\s+|\s*[,;]\s*(?:and\s+)?)")
"""Behind what has its noun already: the second comma of "9 hens, 10 rabbits, 2 cows"."""
_BEHIND_MEASURE = re.compile(rf"\s?(?P<unit>{_MEASURE})\b", re.IGNORECASE)
_BEHIND_NOUN = re.compile(
    r"\s?(?P<unit>(?!(?:each|apiece|total|altogether|more|less|fewer|left|remaining|per|times)\b)[A-Za-z]{3,20})"
    r"(?=\s*(?:[.,;!?]|$|\n|and\s))"
)
_AND = re.compile(
    r"\s*,?\s*(?:and|or|&|und|oder|et|ou|y|o|\u0438|\u0438\u043b\u0438|\u548c|\u6216|\u4e0e|\u53ca|\u3001)\s*(?:is\s+|also\s+)?",
    re.IGNORECASE,
)
_COMMA = re.compile(r"\s*[,;\uff0c]\s*")
_LIST_END = re.compile(r"\s*(?:[.!?;:)\u3002]|$|\n|,?\s*respectively)")


def _merge_quantities(text: str, values: list[Value]) -> list[Value]:
    """Makes one value of 5 hours 30 minutes, of 2 dollars and 5 cents, of 9 chickens and 10 rabbits."""
    merged: list[Value] = []
    for value in values:
        last = merged[-1] if merged else None
        whole = _merge_two(text, last, value) if last is not None and _are_plain(last, value) else None
        if whole is None:
            merged.append(value)
        else:
            merged[-1] = whole
    return merged


def _are_plain(*values: Value) -> bool:
    return not any(value.is_name or value.is_label or value.is_negated for value in values)


def _merge_two(text: str, first: Value, second: Value) -> Value | None:
    between, behind = text[first.end : second.begin], text[second.end : second.end + _WINDOW]
    left, right = _BETWEEN_MEASURES.fullmatch(between), _BEHIND_MEASURE.match(behind)
    if not (left and right):
        joint = _BETWEEN_WHOLES if re.search(r"\d.*\s[A-Za-z]{3,20}$", first.text) else _BETWEEN_NOUNS
        left, right = joint.fullmatch(between), _BEHIND_NOUN.match(behind)
    if not (left and right) or "$" in first.text:
        return None
    end = second.end + right.end()
    cents = second.text.zfill(2)
    if (left["unit"] + right["unit"]).lower() in (
        "dollarcents",
        "dollarscents",
        "dollarscent",
        "eurocents",
        "euroscents",
    ):
        shown = f"{first.text}.{cents}" if first.text.isdecimal() and cents.isdecimal() and len(cents) == 2 else ""
        return replace(first, text=shown or text[first.begin : end], end=end)
    return replace(first, text=text[first.begin : end], end=end)


def _merge_lists(text: str, values: list[Value]) -> list[Value]:
    """Makes one value of 2, 3 and 5."""
    merged: list[Value] = []
    index = 0
    while index < len(values):
        last = index
        joined_by_words = False
        while last + 1 < len(values) and _are_plain(values[last], values[last + 1]):
            between = text[values[last].end : values[last + 1].begin]
            if _AND.fullmatch(between):
                joined_by_words = True
            elif not _COMMA.fullmatch(between):
                break
            last += 1
        if last > index and (joined_by_words or _LIST_END.match(text, values[last].end)):
            begin, end = values[index].begin, values[last].end
            merged.append(replace(values[index], text=text[begin:end], end=end))
            index = last + 1
        else:
            merged.append(values[index])
            index += 1
    return merged
