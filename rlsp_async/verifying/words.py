"""Answers that are words, letters of a choice, times of day: equal after case, blanks and marks are put aside.

same_words("(D)", "D) 42") is True      same_words("\\\\text{4:30 p.m.}", "4:30 PM") is True
"""

from __future__ import annotations

import re

_DRESS = re.compile(r"\\(?:text|mathrm)(?![a-z])|[{}$*`\"'\\]|\s+")
_ARTICLE = re.compile(r"^(?:the|an?|on|at|in|is|are|option|choice|answer)\s+")
_CHOICE = re.compile(r"(?:option|choice|answer)?\s?\(?([A-Za-z])\)?(?:\s?[).:,-]\s?.*|\s?)", re.IGNORECASE | re.DOTALL)
_LETTER = re.compile(r"\(?([A-Za-z])\)?\.?")
_BLANK = re.compile(r"(?<!\d) | (?!\d)")
_WORDY = re.compile(r"[A-Za-z]{2}")
COUNTS = {
    word: number
    for number, word in enumerate(
        (
            "zero",
            "one",
            "two",
            "three",
            "four",
            "five",
            "six",
            "seven",
            "eight",
            "nine",
            "ten",
            "eleven",
            "twelve",
            "thirteen",
            "fourteen",
            "fifteen",
            "sixteen",
            "seventeen",
            "eighteen",
            "nineteen",
            "twenty",
        )
    )
}


def same_words(gold: str, found: str) -> bool | None:
    """Whether two texts say the same; None when the gold answer is no text."""
    one, other = bare_words(gold), bare_words(found)
    if one and _BLANK.sub("", one) == _BLANK.sub("", other):
        return True
    letter = _LETTER.fullmatch(one)
    if letter is not None:
        choice = _CHOICE.fullmatch(other)
        return choice is not None and choice[1] == letter[1]
    return False if _WORDY.search(one) and is_text(gold) else None


def is_text(text: str) -> bool:
    """Whether an answer is words, not an expression."""
    without = re.sub(r"\\[a-zA-Z]+", " ", text)
    return re.search(r"[A-Za-z]{4}|[A-Za-z] [A-Za-z]{2}|:", without) is not None


def bare_words(text: str) -> str:
    """Lower case, single blanks; no marks, no article in front, no full stop."""
    words = " ".join(_DRESS.sub(" ", text).casefold().split())
    words = re.sub(r"\b([ap])\.\s?m\.?", r"\1m", words).replace(" ,", ",")
    return _ARTICLE.sub("", words).rstrip(".").strip()
