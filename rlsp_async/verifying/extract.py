"""Where in a response the answer stands. Pure text work in linear time; no parser has seen the response before this.

Only what follows the last `</think>` counts (the whole response when there is none). In it, the first of these that
is present, the last occurrence of each: `<answer>...</answer>`, `\\boxed{...}`, `#### ...`, "the answer is ...", and,
when `numbers` is asked for, a response that is one short expression, the last number or formula. `order` names those
that are looked for, and in which order:

    find_answer("#### 1, no: \\boxed{2}") == "2"      find_answer("#### 1\n\\boxed{2}", order=("hashes",)) == "1"
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal

Place = Literal["answer_tag", "boxed", "hashes", "sentence", "expression", "last"]
ORDER: tuple[Place, ...] = ("answer_tag", "boxed", "hashes", "sentence", "expression", "last")
"""As above: `<answer>`, a box, `####`, "the answer is", one expression, the last number or formula."""
MAX_CHARS = 4_000
"""A longer answer is none."""
TAIL_CHARS = 50_000
"""Only the end of a response is searched."""

MAX_BOXES = 20
MIN_PHRASE_WORDS = 3
_BOXES = ("\\boxed", "\\fbox")
_SAYS = re.compile(r"answer\s{0,3}(?:is|:|=)\s{0,3}:?", re.IGNORECASE)
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
    """The answer as written, blanks stripped; None when there is none, or it is longer than MAX_CHARS."""
    text = response[-TAIL_CHARS:].rpartition("</think>")[2]
    finders = _FINDERS if numbers else _OF_WORDS
    for place in order:
        found = finders[place](text) if place in finders else None
        if found is not None:
            found = found.strip()
            return found if 0 < len(found) <= MAX_CHARS else None
    return None


def strip_box(text: str) -> str:
    """The inside of a text that is one box as a whole; other text as it is."""
    inside = _boxed(text) if text.startswith(_BOXES) else None
    return inside.strip() if inside is not None else text


def plain_words(text: str) -> str:
    """Lower case, single blanks, without marks around."""
    return " ".join(text.casefold().split()).strip("*_`'\"$ ").rstrip(".").rstrip()


def _tagged(text: str) -> str | None:
    head, closed, _ = text.rpartition("</answer>")
    opened = head.rpartition("<answer>") if closed else ("", "", "")
    return strip_box(opened[2].strip()) if opened[1] else None


def _boxed(text: str) -> str | None:
    """Inside of the last box; boxes with only a comma or "and" between them make one list."""
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
    """Inside of the last box whose braces balance, and where it begins; `\\boxed 7` gives 7."""
    start, length = max((text.rfind(box), len(box)) for box in _BOXES)
    if start < 0:
        return None, 0
    inside = text[start + length :].lstrip(" ")
    if inside.startswith("{"):
        return _balanced(inside, 0), start
    return (inside.split(maxsplit=1) or [""])[0].strip("$.,"), start


def _balanced(text: str, opening: int) -> str | None:
    """What stands between the brace at `opening` and its partner; None when it never closes."""
    depth, at, end = 0, opening, min(len(text), opening + MAX_CHARS + 2)
    while at < end:
        char = text[at]
        depth += (char == "{") - (char == "}")
        if depth == 0:
            return text[opening + 1 : at]
        at += 2 if char == "\\" else 1
    return None


def _hashed(text: str) -> str | None:
    _, mark, tail = text.rpartition("####")
    return tail.strip().partition("\n")[0] if mark else None


def _said(text: str) -> str | None:
    match = _last(_SAYS, text)
    if match is None:
        return None
    rest = text[match.end() :].lstrip()
    rest = _LABEL_END.sub("", rest, count=1)
    if formula := _DOLLARS.match(rest):
        return next(group for group in formula.groups() if group is not None)
    line = rest.partition("\n")[0]
    return _STOP.split(line, maxsplit=1)[0] or None


def _said_value(text: str) -> str | None:
    """The only formula or number of a longer phrase, else the phrase: "the answer is that we need 12 apples"."""
    line = _said(text)
    if not line or len(_WORD.findall(_COMMAND.sub(" ", line))) < MIN_PHRASE_WORDS:
        return line
    formulas = [next(filter(None, groups)) for groups in _FORMULA.findall(line)]
    values = formulas or ([] if "\\" in line or "^" in line else _NUMBER.findall(line))
    return values[0] if len(values) == 1 else line


def _whole(text: str) -> str | None:
    """A response that is one line without words: an expression and nothing else."""
    line = text.strip()
    if len(line) > 300 or "\n" in line or _PROSE.search(_COMMAND.sub(" ", line)):
        return None
    return line if any(char in "\\^/*({[" for char in line) else None


def _last_value(text: str) -> str | None:
    """The last number, or the last formula in dollar signs when no number stands behind it."""
    match, formula = _last(_NUMBER, text), _last(_FORMULA, text)
    if formula is not None and (match is None or match.start() < formula.end()):
        return next(group for group in formula.groups() if group is not None)
    return match.group() if match else None


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    return next(iter(deque(pattern.finditer(text), maxlen=1)), None)


_OF_WORDS: dict[Place, Callable[[str], str | None]] = {
    "answer_tag": _tagged,
    "boxed": _boxed,
    "hashes": _hashed,
    "sentence": _said,
}
_FINDERS: dict[Place, Callable[[str], str | None]] = {
    **_OF_WORDS,
    "sentence": _said_value,
    "expression": _whole,
    "last": _last_value,
}
