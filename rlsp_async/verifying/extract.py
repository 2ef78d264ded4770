"""Where in a response the answer stands. Text work in linear time; no parser has seen the response before this.

    find_spans("so \\boxed{2} or \\boxed{3}")     FoundAnswer(place="boxed", texts=("2", "3"))
    find_spans("\\boxed{7")                       FoundAnswer(place="boxed", problem="an unclosed box")
    find_answer("#### 1, no: \\boxed{2}")         "2"
    find_answer("#### 1\\n\\boxed{2}", order=("hashes",))    "1"

Only what follows the last thought is searched (`thoughts`). The first of these places that is present counts, and of
several the last one: `<answer>...</answer>`, `\\boxed{...}` (`boxes`), `#### ...`, "the answer is ...", and, when
numbers are wanted, a response that is one short expression, and the last number or formula. `order` names the places to
search and their order. A place that is present but cannot be read is a problem, and no later place is tried.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from rlsp_async.verifying.boxes import MAX_CHARS, last_boxes, remove_empty_boxes, strip_box
from rlsp_async.verifying.thoughts import split_thoughts

__all__ = ["ORDER", "FoundAnswer", "Place", "find_answer", "find_spans", "normalize_words", "strip_box"]

Place = Literal["answer_tag", "boxed", "hashes", "sentence", "expression", "last"]
ORDER: tuple[Place, ...] = ("answer_tag", "boxed", "hashes", "sentence", "expression", "last")
"""The places: `<answer>`, a box, `####`, "the answer is", one expression, the last number or formula."""
TAIL_CHARS = 50_000
"""Only the end of a response is searched."""

MIN_PHRASE_WORDS = 3
_ANSWER_IS = re.compile(r"answer\s{0,3}(?:is|:|=)\s{0,3}:?", re.IGNORECASE)
_STOP = re.compile(r"(?<!\\)[.!?;](?:\s|$)")
_DOLLARS = re.compile(r"\$\$?((?:[^$\\]|\\.){1,500})\$\$?(?=[\s.,;*]|$)|\\\[([^$]{1,500}?)\\\]|\\\(([^$]{1,500}?)\\\)")
_LABEL_END = re.compile(r"^(?:[:\s]|[*_]{1,2}(?=[\s:])){1,10}")
_WORD = re.compile(r"[A-Za-z]{2,}")
_COMMAND = re.compile(r"\\(?:text|mathrm|mbox|operatorname)\s{0,3}\{[^{}]{0,200}\}|\\[a-zA-Z]+")
_PROSE = re.compile(r"(?<![A-Za-z])(?!sqrt|sin|cos|tan|log|exp|and|or|pi|inf)[A-Za-z]{2,}")
_FORMULA = re.compile(
    r"\$\$?((?=[^$\n]{0,400}[\\^=(]|-?[a-z\d])[^$\n]{1,400})\$|\\\(([^\n]{1,400}?)\\\)|\\\[([^\n]{1,400}?)\\\]"
)
_NUMBER = re.compile(r"(?<![\w.])[-+]?[$]?\d[\d,]*(?:\.\d+)?(?:\s?/\s?\d+)?%?")


@dataclass(frozen=True, slots=True)
class FoundAnswer:
    """The answer of a response as its author wrote it."""

    place: Place | None = None
    """Where it stands; None: in none of the places."""
    texts: tuple[str, ...] = ()
    """The answer. Several: different boxes side by side, in order; a list, or several ways to write one value."""
    problem: str = ""
    """Why the place, or the response, holds no answer that can be read, in a few words; there are no texts then."""

    @property
    def text(self) -> str:
        """The answer as one text: several with commas between them."""
        return ", ".join(self.texts)


def find_spans(
    response: str, numbers: bool = True, order: Sequence[Place] = ORDER, thinking: Sequence[Sequence[str]] = ()
) -> FoundAnswer:
    """Finds the answer in a response.

    Args:
        response: the whole response.
        numbers: whether the places "expression" and "last" are searched, and a number is taken out of a long sentence.
        order: the places to search, in this order.
        thinking: opening and closing marks of thoughts, beside those that are known.

    Returns:
        The answer, without blanks around it. Without `place` and `problem` there is none.
    """
    spoken = split_thoughts(response, thinking)
    if spoken.is_unfinished:
        return FoundAnswer(problem="an unfinished thought")
    text = remove_empty_boxes(spoken.text[-TAIL_CHARS:])
    for place in order:
        if place == "boxed":
            boxes = last_boxes(text)
            found = FoundAnswer(place, boxes.texts, boxes.problem) if boxes.texts or boxes.problem else None
        else:
            found = _find_one(text, place, numbers)
        if found is not None:
            return found
    return FoundAnswer()


def find_answer(
    response: str, numbers: bool = True, order: Sequence[Place] = ORDER, thinking: Sequence[Sequence[str]] = ()
) -> str | None:
    """Returns the text that `find_spans` finds, or None when there is none or it cannot be read."""
    return find_spans(response, numbers, order, thinking).text or None


def _find_one(text: str, place: Place, numbers: bool) -> FoundAnswer | None:
    finders = _FINDERS if numbers else _WORD_FINDERS
    extracted = finders[place](text) if place in finders else None
    if extracted is None:
        return None
    extracted = extracted.strip()
    if not extracted:
        return FoundAnswer(place, problem="an empty answer")
    if len(extracted) > MAX_CHARS:
        return FoundAnswer(place, problem=f"limit: an answer of more than {MAX_CHARS} characters")
    return FoundAnswer(place, (extracted,))


def normalize_words(text: str) -> str:
    """Makes words comparable: lower case, single blanks, no marks around them, no full stop."""
    return " ".join(text.casefold().split()).strip("*_`'\"$ ").rstrip(".").rstrip()


def _in_answer_tag(text: str) -> str | None:
    head, closed, _ = text.rpartition("</answer>")
    opened = head.rpartition("<answer>") if closed else ("", "", "")
    return strip_box(opened[2].strip()) if opened[1] else None


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
    "hashes": _after_hashes,
    "sentence": _after_answer_is,
}
_FINDERS: dict[Place, Callable[[str], str | None]] = {
    **_WORD_FINDERS,
    "sentence": _value_after_answer_is,
    "expression": _whole_expression,
    "last": _last_value,
}
