r"""The boxes of a response: `\boxed{...}` and its like, nested braces and all. One pass over the braces, linear time.

    last_boxes(r"\boxed{1}, no: \boxed{2}").texts == ("2",)    last_boxes(r"\boxed{2} or \boxed{3}").texts == ("2", "3")
    last_boxes(r"\boxed{5}, $\boxed{5}$").texts == ("5",)       last_boxes(r"\boxed{5").problem == "an unclosed box"

Boxes belong together when nothing between them takes the earlier one back: blanks, punctuation, "and", "or", a name
with an equals sign, the label of a part. Who read only the last of them would accept half of an answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_CHARS = 4_000
"""A longer box is not read."""
MAX_BOXES = 20
"""More different boxes side by side are no answer."""
MAX_BETWEEN = 80
"""Boxes with more characters between them do not belong together."""

_BOX = re.compile(r"(?:\\boxed|\\fbox|\\framebox|\x08oxed|(?<![A-Za-z\\])boxed(?=\{))(?![A-Za-z])[ \t]*")
_EMPTY_BOX = re.compile(_BOX.pattern + r"\{\s{0,20}\}")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_COMMAND_WORDS = re.compile(r"\\(?:text|textbf|textrm|mathrm|mbox)\s?\{([^{}]{0,80})\}")
_SPACING = re.compile(
    r"\\(?:[()\[\],;:!> ]|quad|qquad|hspace\{[^{}]{0,20}\}|newline)|\\\\|[$*_~]{1,4}(?=\s|$|[\W])|[$]"
)
_JOINER = re.compile(
    r"""[\s,;.&/|+]+
    | (?:and|or|also|as\ well\ as|respectively|either|maybe|perhaps|possibly|alternatively|for|in|part|case|when|if)\b
    | (?:und|oder|et|ou|y|o|e|i|ili|en|of|dan|atau)\b | \u0438\u043b\u0438 | \u0438
    | [\u548c\u6216\u53ca\u4e0e\u3001\uff0c\uff1b]
    | \(?(?:[a-zA-Z]|\d{1,2}|i{1,3}|iv)\)[:.]? | \d{1,2}[.:](?=\s) | part\s[a-zA-Z\d]\b:?
    | [A-Za-z](?:_\{?\w{1,3}\}?|\(\w\))?\s{0,3}= | \\[a-z]{2,8}(?:_\{?\w{1,3}\}?)?\s{0,3}= | =
    """,
    re.VERBOSE | re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Boxes:
    """The boxes that give the answer: their different contents in order, and where they begin and end in the text.

    `problem` says why the box cannot be read; there are no texts then. Without any box both are empty.
    """

    texts: tuple[str, ...] = ()
    problem: str = ""
    begin: int = 0
    end: int = 0


@dataclass(frozen=True, slots=True)
class _Box:
    inside: str
    problem: str
    begin: int
    end: int


def last_boxes(text: str) -> Boxes:
    """Returns the last box with those that belong to it. Empty boxes do not count."""
    boxes = _find_boxes(text) if "oxed" in text or "box" in text else []
    if not boxes:
        return Boxes()
    last = len(boxes) - 1
    first = last
    while (
        first > 0 and not boxes[first - 1].problem and _belong_together(text[boxes[first - 1].end : boxes[first].begin])
    ):
        first -= 1
    begin, end = boxes[first].begin, boxes[last].end
    if problem := boxes[last].problem:
        return Boxes((), problem, begin, end)
    texts = tuple(dict.fromkeys(strip_box(box.inside) for box in boxes[first:]))
    if len(texts) > MAX_BOXES:
        return Boxes((), f"more than {MAX_BOXES} boxes side by side", begin, end)
    return Boxes(texts, "", begin, end)


def strip_box(text: str) -> str:
    """Returns what stands in the box of a text that begins with a box; any other text is returned unchanged."""
    while (match := _BOX.match(text)) is not None:
        box = _read_box(text, match, _closing_braces(text))
        if box.problem or not box.inside:
            break
        text = box.inside
    return text


def _find_boxes(text: str) -> list[_Box]:
    """All boxes that are not inside another one, without empty ones."""
    closing = _closing_braces(text)
    boxes: list[_Box] = []
    at = 0
    while (match := _BOX.search(text, at)) is not None:
        box = _read_box(text, match, closing)
        at = match.end() if box.problem else max(box.end, match.end())
        if box.inside or box.problem:
            boxes.append(box)
    return boxes


def _read_box(text: str, mark: re.Match[str], closing: dict[int, int]) -> _Box:
    """The box that begins with a mark. `\\boxed 7` holds 7."""
    begin, opening = mark.start(), mark.end()
    if text[opening : opening + 1] == "{":
        end = closing.get(opening)
        if end is None:
            return _Box("", "an unclosed box", begin, len(text))
        if end - opening - 1 > MAX_CHARS:
            return _Box("", f"limit: a box of more than {MAX_CHARS} characters", begin, end + 1)
        return _Box(text[opening + 1 : end].strip(), "", begin, end + 1)
    token = (text[opening : opening + 200].split(maxsplit=1) or [""])[0]
    return _Box(token.strip("$.,"), "", begin, opening + len(token.rstrip("$.,")))


def _closing_braces(text: str) -> dict[int, int]:
    """Where each brace is closed; braces behind a backslash do not count."""
    closing: dict[int, int] = {}
    opened: list[int] = []
    for match in _BRACE.finditer(text):
        if match[0] == "{":
            opened.append(match.start())
        elif match[0] == "}" and opened:
            closing[opened.pop()] = match.start()
    return closing


def _belong_together(between: str) -> bool:
    """Whether a text between two boxes leaves the first one standing beside the second."""
    if len(between) > MAX_BETWEEN:
        return False
    left = _SPACING.sub(" ", _COMMAND_WORDS.sub(r" \1 ", between))
    while left:
        match = _JOINER.match(left)
        if match is None:
            return False
        left = left[match.end() :]
    return True


def remove_empty_boxes(text: str) -> str:
    """Returns a text without the boxes that hold nothing, as in "I put it into a \\boxed{}"."""
    return _EMPTY_BOX.sub(" ", text) if "{" in text else text
