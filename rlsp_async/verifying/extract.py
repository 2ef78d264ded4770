"""Where in a response the answer stands. Text work in linear time; no parser has seen the response before this.

Only what follows the last `</think>` is searched, or the whole response when there is none. The first of these places
that is present counts, and of several the last one: `<answer>...</answer>`, `\\boxed{...}`, `#### ...`, "the answer is
...", and, when numbers are wanted, a response that is one short expression, and the last number or formula. `order`
names the places to search and their order:

    find_answer("#### 1, no: \\boxed{2}") == "2"      find_answer("#### 1\n\\boxed{2}", order=("hashes",)) == "1"
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal

Place = Literal["answer_tag", "boxed", "hashes", "sentence", "expression", "last"]
ORDER: tuple[Place, ...] = ("answer_tag", "boxed", "hashes", "sentence", "expression", "last")
"""The places: `<answer>`, a box, `####`, "the answer is", one expression, the last number or formula."""
MAX_CHARS = 4_000
"""A longer answer is not accepted."""
TAIL_CHARS = 50_000
"""Only the end of a response is searched."""

MAX_BOXES = 20
MIN_PHRASE_WORDS = 3
_BOXES = ("\\boxed", "\\fbox")
_ANSWER_IS = re.compile(r"answer\s{0,3}(?:is|:|=)\s{0,3}:?", re.IGNORECASE)
_STOP = re.compile(r"(?<!\\)[.!?;](?:\s|$)")
_DOLLARS = re.compile(r"\$\$?((?:[^$\\]|\\.){1,500})\$\$?(?=[\s.,;*]|$)|\\\[([^$]{1,500}?)\\\]|\\\(([^$]{1,500}?)\\\)")
_LABEL_END = re.compile(r"^(?:[:\s]|[*_]{1,2}(?=[\s:])){1,10}")
_WORD = re.compile(r"[A-Za-z]{2,}")
_BETWEEN = re.compile(r"[\s$,;]*(?:and|or)?[\s$,;]*")
_COMMAND = re.compile(r"\\(?:text|mathrm|mbox|operatorname)\s{0,3}\{[^{}]{0,200}\}|\\[a-zA-Z]+")
_PROSE = re.compile(r"(?<![A-Za-z])(?!sqrt|sin|cos|tan|log|exp|and|or|pi|inf)[A-Za-z]{2,}")
_FORMULA = re.compile(
    r"\$\$?((?=[^$\n]{0,400}[\\^=(]|-?[a-z\d])[^$\n]{1,400})\$|\\\(([^\n]{1,400}?)\\\)|\\\[([^\n]{1,400}?)\\\]"
)
_NUMBER = re.compile(r"(?<![\w.])[-+]?[$]?\d[\d,]*(?:\.\d+)?(?:\s?/\s?\d+)?%?")


def find_answer(response: str, numbers: bool = True, order: Sequence[Place] = ORDER) -> str | None:
    """Finds the answer in a response.

    Args:
        response: the whole response.
        numbers: whether the places "expression" and "last" are searched, and a number is taken out of a long sentence.
        order: the places to search, in this order.

    Returns:
        The answer as written, without blanks around it, or None when there is none or it is longer than MAX_CHARS.
    """
    text = response[-TAIL_CHARS:].rpartition("</think>")[2]
    finders = _FINDERS if numbers else _WORD_FINDERS
    for place in order:
        extracted = finders[place](text) if place in finders else None
        if extracted is not None:
            extracted = extracted.strip()
            return extracted if 0 < len(extracted) <= MAX_CHARS else None
    return None


def strip_box(text: str) -> str:
    """Returns what stands in the box of a text that begins with a box; any other text is returned unchanged."""
    inside = _in_box(text) if text.startswith(_BOXES) else None
    return inside.strip() if inside is not None else text


def normalize_words(text: str) -> str:
    """Makes words comparable: lower case, single blanks, no marks around them, no full stop."""
    return " ".join(text.casefold().split()).strip("*_`'\"$ ").rstrip(".").rstrip()


def _in_answer_tag(text: str) -> str | None:
    head, closed, _ = text.rpartition("</answer>")
    opened = head.rpartition("<answer>") if closed else ("", "", "")
    return strip_box(opened[2].strip()) if opened[1] else None


def _in_box(text: str) -> str | None:
    """What stands in the last box; boxes with only a comma or "and" between them make one list."""
    inside, start = _last_box(text)
    parts: list[str] = [] if inside is None else [inside]
    while inside is not None and len(parts) < MAX_BOXES:
        at = start
        inside, start = _last_box(text[max(0, at - MAX_CHARS) : at])
        start += max(0, at - MAX_CHARS)
        end = start + len("\\boxed{") + len(inside or "") + 1
        if inside is None or not 0 < at - end < 12 or not _BETWEEN.fullmatch(text[end:at]):
            break
        parts.insert(0, inside)
    return ", ".join(parts) if parts else None


def _last_box(text: str) -> tuple[str | None, int]:
    """What stands in the last box, and where the box begins. `\\boxed 7` gives 7; None when its brace never closes."""
    start, length = max((text.rfind(box), len(box)) for box in _BOXES)
    if start < 0:
        return None, 0
    inside = text[start + length :].lstrip(" ")
    if inside.startswith("{"):
        return _in_braces(inside, 0), start
    return (inside.split(maxsplit=1) or [""])[0].strip("$.,"), start


def _in_braces(text: str, opening: int) -> str | None:
    """What stands between the brace at `opening` and the brace that closes it; None when none does."""
    depth, at, end = 0, opening, min(len(text), opening + MAX_CHARS + 2)
    while at < end:
        char = text[at]
        depth += (char == "{") - (char == "}")
        if depth == 0:
            return text[opening + 1 : at]
        at += 2 if char == "\\" else 1
    return None


def _after_hashes(text: str) -> str | None:
    _, mark, tail = text.rpartition("####")
    return tail.strip().partition("\n")[0] if mark else None


def _after_answer_is(text: str) -> str | None:
    match = _last_match(_ANSWER_IS, text)
    if match is None:
        return None
    rest = text[match.end() :].lstrip()
    rest = _LABEL_END.sub("", rest, count=1)
    if formula := _DOLLARS.match(rest):
        return next(group for group in formula.groups() if group is not None)
    line = rest.partition("\n")[0]
    return _STOP.split(line, maxsplit=1)[0] or None


def _value_after_answer_is(text: str) -> str | None:
    """As `_after_answer_is`, but a longer phrase with one formula or number ("we need 12 apples") gives only that."""
    line = _after_answer_is(text)
    if not line or len(_WORD.findall(_COMMAND.sub(" ", line))) < MIN_PHRASE_WORDS:
        return line
    formulas = [next(filter(None, groups)) for groups in _FORMULA.findall(line)]
    values = formulas or ([] if "\\" in line or "^" in line else _NUMBER.findall(line))
    return values[0] if len(values) == 1 else line


def _whole_expression(text: str) -> str | None:
    """A response that is one line without words, that is an expression and nothing else."""
    line = text.strip()
    if len(line) > 300 or "\n" in line or _PROSE.search(_COMMAND.sub(" ", line)):
        return None
    return line if any(char in "\\^/*({[" for char in line) else None


def _last_value(text: str) -> str | None:
    """The last number, or the last formula in dollar signs when no number follows it."""
    match, formula = _last_match(_NUMBER, text), _last_match(_FORMULA, text)
    if formula is not None and (match is None or match.start() < formula.end()):
        return next(group for group in formula.groups() if group is not None)
    return match.group() if match else None


def _last_match(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    return next(iter(deque(pattern.finditer(text), maxlen=1)), None)


_WORD_FINDERS: dict[Place, Callable[[str], str | None]] = {
    "answer_tag": _in_answer_tag,
    "boxed": _in_box,
    "hashes": _after_hashes,
    "sentence": _after_answer_is,
}
_FINDERS: dict[Place, Callable[[str], str | None]] = {
    **_WORD_FINDERS,
    "sentence": _value_after_answer_is,
    "expression": _whole_expression,
    "last": _last_value,
}
