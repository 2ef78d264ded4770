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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from rlsp_async.verifying.atoms import has_prose, remove_marks
from rlsp_async.verifying.boxes import MAX_CHARS, last_boxes, remove_empty_boxes, strip_box
from rlsp_async.verifying.sentences import choose_value, find_clause, last_value, strip_decoration, strip_math_mode
from rlsp_async.verifying.thoughts import split_thoughts
from rlsp_async.verifying.values import find_values

__all__ = ["ORDER", "FoundAnswer", "Place", "find_answer", "find_spans", "strip_box"]

Place = Literal["answer_tag", "boxed", "hashes", "sentence", "expression", "last"]
ORDER: tuple[Place, ...] = ("answer_tag", "boxed", "hashes", "sentence", "expression", "last")
"""The places: `<answer>`, a box, `####`, "the answer is", one expression, the last number or formula."""
TAIL_CHARS = 50_000
"""Only the end of a response is searched."""

LAST_CHARS = 4_000
"""The last value is looked for in the last characters, in at most this number of them."""
NEAR_CHARS = 300
"""It is looked for in this number of them first."""
_TAG = re.compile(r"<(/?)(?:final_)?answer>", re.IGNORECASE)
_HASHES = re.compile(r"(?<!#)#{4}(?!#)[ \t]*([^\n]*)")


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
        found = _FINDERS[place](text, numbers)
        if found is not None:
            return _check_final(text, found, numbers) if place == "boxed" and "sentence" in order else found
    return FoundAnswer()


def find_answer(
    response: str, numbers: bool = True, order: Sequence[Place] = ORDER, thinking: Sequence[Sequence[str]] = ()
) -> str | None:
    """Returns the text that `find_spans` finds, or None when there is none or it cannot be read."""
    return find_spans(response, numbers, order, thinking).text or None


# --- the places ------------------------------------------------------------------------------------------------------


def _make(place: Place, extracted: str) -> FoundAnswer:
    extracted = strip_math_mode(extracted.strip())
    if not extracted:
        return FoundAnswer(place, problem="an empty answer")
    if len(extracted) > MAX_CHARS:
        return FoundAnswer(place, problem=f"limit: an answer of more than {MAX_CHARS} characters")
    return FoundAnswer(place, (extracted,))


def _in_answer_tag(text: str, numbers: bool) -> FoundAnswer | None:
    tags = list(_TAG.finditer(text)) if "</" in text else []
    while tags and not tags[-1][1]:
        tags.pop()
    opening = next((tag for tag in reversed(tags[:-1]) if not tag[1]), None) if tags else None
    if opening is None:
        return None
    inside = text[opening.end() : tags[-1].start()].strip()
    boxes = last_boxes(inside)
    if boxes.texts or boxes.problem:
        return FoundAnswer("answer_tag", boxes.texts, boxes.problem)
    if not numbers or len(inside) > MAX_CHARS:
        return _make("answer_tag", inside)
    clause = find_clause(inside)
    return _make("answer_tag", choose_value(clause.text if clause else inside) if "\\begin" not in inside else inside)


def _in_box(text: str, numbers: bool) -> FoundAnswer | None:
    boxes = last_boxes(text)
    return FoundAnswer("boxed", boxes.texts, boxes.problem) if boxes.texts or boxes.problem else None


def _check_final(text: str, boxed: FoundAnswer, numbers: bool) -> FoundAnswer:
    """A "final answer" behind the last box, with a value of its own, stands above the box."""
    end = last_boxes(text).end
    clause = find_clause(text[end:]) if numbers and boxed.texts else None
    if clause is None or not clause.is_final or not find_values(clause.text):
        return boxed
    return _make("sentence", choose_value(clause.text))


def _after_hashes(text: str, numbers: bool) -> FoundAnswer | None:
    """The line behind the last `####`; a heading of four hashes with text below it is no answer."""
    marks = list(_HASHES.finditer(text)) if "####" in text else []
    if not marks:
        return None
    line = marks[-1][1].strip() or text[marks[-1].end() :].strip().partition("\n")[0]
    if not line:
        return None
    if numbers and has_prose(line):
        values = [value for value in find_values(line) if not (value.is_name or value.is_label)]
        if not values and text[marks[-1].end() :].strip():
            return None
    clause = find_clause(line)
    line = clause.text if clause else line
    return _make("hashes", choose_value(line) if numbers else line)


def _after_answer_is(text: str, numbers: bool) -> FoundAnswer | None:
    clause = find_clause(text)
    if clause is None:
        return None
    return _make("sentence", choose_value(clause.text) if numbers else clause.text)


def _whole_expression(text: str, numbers: bool) -> FoundAnswer | None:
    """A response that is one line with one value and nothing else."""
    line = strip_decoration(remove_marks(text))
    if not numbers or len(line) > 300 or "\n" in line or has_prose(line) or not line:
        return None
    values = find_values(line)
    if len(values) == 1 and not values[0].is_name and not line[: values[0].begin].strip(" $("):
        tail = line[values[0].end :].strip(" $)")
        return _make("expression", line) if not tail or tail in ("!", "?") else None
    return None


def _last_value(text: str, numbers: bool) -> FoundAnswer | None:
    """The last value in the end of a response. Few characters are tried first, since most answers are short."""
    text = text.rstrip()
    if not numbers or not text:
        return None
    for num_chars in (NEAR_CHARS, LAST_CHARS):
        cut = max(0, len(text) - num_chars)
        values = find_values(remove_marks(text[cut:]))
        if cut and num_chars == NEAR_CHARS and (len(values) < 3 or values[-1].is_negated or values[-1].is_name):
            continue
        if cut and len(values) == 1 and values[0].begin < 2:
            return FoundAnswer("last", problem=f"limit: an answer of more than {MAX_CHARS} characters")
        extracted = last_value(remove_marks(text[cut:]), values)
        return None if extracted is None else _make("last", extracted)
    return None


_FINDERS: dict[Place, Callable[[str, bool], FoundAnswer | None]] = {
    "answer_tag": _in_answer_tag,
    "boxed": _in_box,
    "hashes": _after_hashes,
    "sentence": _after_answer_is,
    "expression": _whole_expression,
    "last": _last_value,
}
