"""Brackets of a text in plain spelling: where they open and close, and splitting outside all of them."""

from __future__ import annotations

import re

OPENING = ("\\{", "(", "[", "{", "\\langle")
CLOSING = ("\\}", ")", "]", "}", "\\rangle")
_BRACKET = re.compile(r"\\(?:begin|end)\s?\{[a-zA-Z]+\*?\}|\\[{}]|\\langle|\\rangle|[()\[\]{}]")


def is_one_bracket(text: str) -> bool:
    """Whether the first bracket closes at the very end of the text."""
    depth = 0
    for at, step in _steps(text):
        depth += step
        if depth == 0:
            return at >= len(text)
    return False


def split_outside(pattern: re.Pattern[str], text: str) -> list[str]:
    """Splits the text where `pattern` matches outside all brackets."""
    parts, start = [], 0
    for match in match_outside(pattern, text):
        parts.append(text[start : match.start()])
        start = match.end()
    return [*parts, text[start:]]


def match_outside(pattern: re.Pattern[str], text: str) -> list[re.Match[str]]:
    """The matches of `pattern` outside all brackets."""
    steps, depth, at = _steps(text), 0, 0
    matches = []
    for match in pattern.finditer(text):
        while at < len(steps) and steps[at][0] <= match.start():
            depth += steps[at][1]
            at += 1
        if depth == 0:
            matches.append(match)
    return matches


def drop_brackets(text: str) -> str:
    """Removes what stands in brackets, and leaves the brackets."""
    kept, depth, start = [], 0, 0
    for at, step in _steps(text):
        if depth == 0 and step > 0:
            kept.append(text[start:at])
        depth = max(0, depth + step)
        if depth == 0 and step < 0:
            start = at - 1
    return "".join(kept) + (text[start:] if depth == 0 else "")


def _steps(text: str) -> list[tuple[int, int]]:
    """For every bracket the position behind it, and +1 when it opens or -1 when it closes."""
    return [
        (match.end(), 1 if match[0] in OPENING or match[0].startswith("\\begin") else -1)
        for match in _BRACKET.finditer(text)
    ]
