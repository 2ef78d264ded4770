"""Answers that are words: equal without case, blanks, marks and articles, or the same letter of a choice.

compare_words("(D)", "D) 42") is True             compare_words("\\\\text{4:30 p.m.}", "4:30 PM") is True
compare_words("x+1", "1+x") is None               read_count("five") == 5
"""

from __future__ import annotations

import re

_WORD_MARKS = re.compile(r"\\(?:text|mathrm)(?![a-z])|[{}$*`\"'\\]|\s+")
_ARTICLE = re.compile(r"^(?:the|an?|on|at|in|is|are|option|choice|answer)\s+")
_CHOICE = re.compile(r"(?:option|choice|answer)?\s?\(?([A-Za-z])\)?(?:\s?[).:,-]\s?.*|\s?)", re.IGNORECASE | re.DOTALL)
_LETTER = re.compile(r"\(?([A-Za-z])\)?\.?")
_BLANK = re.compile(r"(?<!\d) | (?!\d)")
_WORDY = re.compile(r"[A-Za-z]{2}")
_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
_ANSWER_WORDS = frozenset({"yes", "no", "true", "false", "odd", "even", "dne", "none", "never", "always"})
_NUMBERS = """
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
    seventeen eighteen nineteen twenty
"""
_COUNTS = {word: number for number, word in enumerate(_NUMBERS.split())}


def read_count(text: str) -> int | None:
    """Reads a number word up to twenty, alone or before a noun ("five apples")."""
    words = normalize_phrase(text).split(" ")
    return _COUNTS.get(words[0]) if len(words) <= 2 and text[:1].isalpha() | text.startswith("\\text") else None


def compare_words(gold: str, extracted: str) -> bool | None:
    """Whether two texts have the same words, or name the same choice; None when `gold` is not words."""
    gold_phrase, phrase = normalize_phrase(gold), normalize_phrase(extracted)
    if gold_phrase and _BLANK.sub("", gold_phrase) == _BLANK.sub("", phrase):
        return True
    letter = _LETTER.fullmatch(gold_phrase)
    if letter is not None:
        choice = _CHOICE.fullmatch(phrase)
        return choice is not None and choice[1] == letter[1]
    return False if _WORDY.search(gold_phrase) and is_text(gold) else None


def is_text(text: str) -> bool:
    """Whether an answer is words rather than an expression."""
    without = re.sub(r"\\[a-zA-Z]+", " ", text)
    return re.search(r"[A-Za-z]{4}|[A-Za-z] [A-Za-z]{2}|:", without) is not None


def is_answer_word(text: str) -> bool:
    """Whether an answer is one of the words that answer a question: yes, no, true, even, none, ..."""
    return normalize_phrase(text) in _ANSWER_WORDS


def unwrap_text(text: str) -> str:
    """Replaces each `\\text{...}` by the words in it."""
    return re.sub(r"\s+", " ", _TEXT.sub(r" \1 ", text)).strip()


def normalize_phrase(text: str) -> str:
    """Makes a phrase comparable: lower case, single blanks, no marks, no leading article, no final full stop."""
    words = " ".join(_WORD_MARKS.sub(" ", text).casefold().split())
    words = re.sub(r"\b([ap])\.\s?m\.?", r"\1m", words).replace(" ,", ",")
    return _ARTICLE.sub("", words).rstrip(".").strip()
