"""Words around a value that do not change it: labels, names with "is", conditions on variables, compound measures.

drop_label("\\\\text{Answer: } 3") == "3"               spell_relation_words("P is 34") == "P = 34"
split_conditions("2x \\\\text{ for all } x") == ("2x", "for all x")
read_compound("5 hours 30 minutes").value == Fraction(11, 2)
split_unit("16\\\\pi\\\\text{ cm}^2")[0] == "16\\\\pi"
"""

from __future__ import annotations

import itertools
import re

from rlsp_async.verifying.math.brackets import match_outside
from rlsp_async.verifying.math.literals import Literal, read_literal
from rlsp_async.verifying.math.units import Unit, is_changing, read_unit
from rlsp_async.verifying.math.words import is_text, unwrap_text

_LABEL = re.compile(r"\s*(?:\\text\s?\{\s*)?([A-Za-z][A-Za-z ]{1,40}):\s*(?:\}\s*)?(?=.*[\d\\A-Za-z])", re.DOTALL)
_LEAD = re.compile(r"\s*\\text\s?\{\s*([A-Za-z][A-Za-z ']{3,60}?)\s*(?:\s(?:is|are|be))?\s*:?\s*\}(?=\s?[^\s=(_^,:])")
_LEAD_WORDS = frozenset({"only", "exactly", "answer", "about", "approximately", "approx", "roughly", "just", "total"})
_LEAD_BLOCKS = re.compile(
    r"square|cube|sum|product|difference|reciprocal|opposite|inverse|more|greater|smaller|up|nearly|almost"
)
_REMARK = re.compile(
    r"\s*(?:\\text\s?\{)?\s*[,(]?\s?(?:only|exactly|exact"
    r"|(?:is|are) the (?:only |final |correct )?(?:solutions?|answers?|values?))\s?\)?\s*\}?\s*$"
)
_IS = re.compile(
    r"([^\d]{1,60}?)\s?(?:\\text\s?\{\s*(?:is|equals|are|is equal to)\s*\}|\s(?:is|equals|are|is equal to)\s)\s?(.+)",
    re.DOTALL,
)
_SPLIT_TEXT = re.compile(r"\\text\s?\{([^{}]*?)\s*(?<![A-Za-z])(and|or)(?![A-Za-z])\s*([^{}]*)\}")
_CONDITION = re.compile(
    r"(?:\s|,|;)*[(\[]?\s?(?:\\text\s?\{\s*[,(]?\s*)?"
    r"(?:(?<![A-Za-z\\])(?:for|where|with|when|such that|provided|assuming|given)(?![A-Za-z])"
    r"|\\forall(?![a-z])|(?<=\{)\s*if(?![a-z])|(?<=[,\s])if\s)"
)
_SET_CONDITION = re.compile(
    r"(?:[,;]\s*(?:\\text\s?\{[^{}]{0,3}\}\s*)?\(?|\s*\(|\s(?=[a-zA-Z](?:_\w)?\s?\\in))\s*"
    r"((?:[a-zA-Z](?:_\w)?\s?,\s?)*[a-zA-Z](?:_\w)?\s?\\in\s?\\mathbb\s?\{?[RZNQC]\}?[^,]{0,12}?)\)?\s*$"
)
_APPROXIMATE = re.compile(
    r"\s?\(\s?(?:\\approx|\\text\s?\{\s*(?:about|approximately|approx\.?|roughly)\s*\}|about|approximately|or)\s?(.+)\)\s*$"
)
_TEXT_APPROXIMATE = re.compile(
    r"\s?\\text\s?\{\s*\(?\s*(?:or\s)?(?:about|approximately|approx\.?|roughly)\s*([^{}()]*?)\s*\)?\s*\}\s*([^\s]*)$"
)
_COMPOUND = re.compile(r"(?<=[A-Za-z}.])[\s,]*(?:\s(?:and)\s|\\text\s?\{\s*and\s*\})?\s?(?=\d)")
_UNIT_START = re.compile(r"\s?\\text(?=\s?\{)|\s?\^\s?\\circ(?![a-z])|\s(?=(?:\\Omega|[A-Za-z]{2}))|(?<=\d)\s?%")
_MAX_UNIT_STARTS = 6
_ANGLE_FUNCTION = re.compile(r"(?:sin|cos|tan|cot|sec|csc)(?![a-z])")
_SETS = {"integer": "Z", "integers": "Z", "real": "R", "reals": "R", "natural": "N", "rational": "Q", "complex": "C"}


def drop_label(text: str) -> str:
    """Removes words around a value: "Answer: 3", "\\text{The answer is } 5", "3 \\text{ only}"."""
    text = _REMARK.sub("", text) if _REMARK.search(text) and not _REMARK.match(text) else text
    lead = _LEAD.match(text)
    if lead is not None and not _blocks_lead(lead[1]) and text[lead.end() :].strip():
        return text[lead.end() :].strip()
    match = _LABEL.match(text)
    if match is None or len(match[1].split()) > 5:
        return text
    rest = (
        text[match.end() :].strip().removesuffix("}")
        if "\\text" in match[0] and "}" not in match[0]
        else text[match.end() :]
    )
    words = match[1].split()
    return rest.strip() if all(len(word) > 1 for word in words) and read_literal(rest.strip()) is not None else text


def _blocks_lead(words: str) -> bool:
    """Whether words in front of a value may change it, or may be the name of a function."""
    if is_changing(words) or _LEAD_BLOCKS.search(words.casefold()):
        return True
    return len(words.split()) < 2 and words.casefold() not in _LEAD_WORDS


def spell_relation_words(text: str) -> str:
    """Writes "P is 34" and "x \\text{ equals } 5" with an equals sign, when a value follows that is not words."""
    match = _IS.fullmatch(text) if " is" in text or "{is" in text or "equal" in text or " are" in text else None
    if match is None or is_changing(match[1]) or is_changing(match[2]):
        return text
    return f"{match[1].strip()} = {match[2].strip()}" if not is_text(unwrap_text(match[2])) else text


def separate_joined_texts(text: str) -> str:
    """Takes "and" and "or" out of a text between two values: `9\\text{ hens and }10`."""
    if "\\text" not in text or not re.search(r"\d", text):
        return text
    return re.sub(r"\\text\s?\{\s*\}", " ", _SPLIT_TEXT.sub(_separate, text))


def _separate(match: re.Match[str]) -> str:
    left, joint, right = match[1].strip(), match[2], match[3].strip()
    if match.string[match.end() :].strip()[:1] in ("", ".") and not re.search(r"\d", right):
        return match[0]
    return f"\\text{{ {left}}} {joint} " + (f"\\text{{{right} }}" if right and not right[:1].isdigit() else right)


def split_conditions(text: str) -> tuple[str, str]:
    """Splits what is said about variables from an answer; ("", conditions) never happens.

    An approximate value in brackets behind an exact one is written with a sign: `\\sqrt2 (\\approx 1.41)`.
    """
    for pattern in (_APPROXIMATE, _TEXT_APPROXIMATE):
        if (about := pattern.search(text)) is not None and about.start() > 0:
            value = " ".join(group for group in about.groups() if group)
            return f"{text[: about.start()]} \\approx {value}", ""
    for match in match_outside(_CONDITION, text)[:1]:
        value, condition = text[: match.start()].strip(), unwrap_text(text[match.start() :]).strip(" ,;()")
        if value and (not is_text(unwrap_text(value)) or "=" in value) and not condition.startswith(("for example",)):
            return value.rstrip("(,; "), condition
    found = _SET_CONDITION.search(text)
    if found is not None and text[: found.start()].strip() and text[: found.start()].rstrip()[-1] not in "=<>|{":
        return text[: found.start()].strip().rstrip(",;"), found[1]
    return text, ""


def same_conditions(left: str, right: str) -> bool:
    """Whether two conditions do not contradict each other: a missing one says nothing, two sets must be the same."""
    sets = [_set_of(condition) for condition in (left, right)]
    return None in sets or sets[0] == sets[1]


def _set_of(condition: str) -> str | None:
    match = re.search(r"\\mathbb\s?\{?([RZNQC])\}?(\^\{?[+*]\}?|_\{?(?:\+|>0|\\ge 0)\}?)?", condition)
    if match is not None:
        return match[1] + ("+" if match[2] else "")
    words = condition.split()
    named = next((_SETS[word] for word in words if word in _SETS), None)
    positive = any(word in ("positive", "nonnegative", "non-negative", "negative") for word in words)
    return named + "+" if named and positive else named


def read_compound(text: str) -> Literal | None:
    """Reads a measure in two or three units of one kind, the larger one first, as a number of the first: 5 h 30 min."""
    if not re.match(r"[-+]?\s?\\?[$]?\d", text) or len(text) > 120:
        return None
    pieces = _COMPOUND.split(text)
    literals = [read_literal(piece.strip()) for piece in pieces]
    if not 2 <= len(pieces) <= 3 or any(literal is None for literal in literals):
        return None
    known = [literal for literal in literals if literal is not None]
    units = [literal.unit for literal in known]
    if len({unit.dimension for unit in units}) > 1 or len(units[0].dimension) != 1:
        return None
    if any(small.scale >= large.scale for large, small in itertools.pairwise(units)):
        return None
    return known[0]._replace(
        value=sum(literal.value * literal.unit.scale for literal in known) / units[0].scale, places=0
    )


def split_unit(text: str) -> tuple[str, Unit]:
    """Splits a unit from the end of an expression; a text that is only words is not changed."""
    if "\\begin" in text:
        return text, Unit()
    for match in match_outside(_UNIT_START, text)[:_MAX_UNIT_STARTS]:
        value, rest = text[: match.start()].strip(), text[match.start() :]
        if (
            not value
            or not re.search(r"[\d})\]a-zA-Z]$", value)
            or (re.search(r"\\[a-z]+$", value) and "\\pi" not in value[-4:])
        ):
            continue
        if "\\circ" in rest and _ANGLE_FUNCTION.search(value):
            continue  # the degrees belong to the argument: \\tan 45^\\circ
        unit = read_unit(rest)
        if unit is not None and not is_text(unwrap_text(value)) and ("\\text" in rest or re.search(r"[\d\\)}]", value)):
            return value, unit
    return text, Unit()
