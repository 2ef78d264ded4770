"""Words made comparable: one spelling for what looks the same, and nothing around them.

normalize_words(" **Yes!** ") == "yes"            normalize_words("cafe\\u0301") == normalize_words("caf\\u00e9")
normalize_words("Paris", ignore_case=False) == "Paris"            normalize_words("5!") == "5!"
"""

from __future__ import annotations

import re
import unicodedata
from typing import Literal

UnicodeForm = Literal["NFKC", "NFC", "none"]
"""How characters are made comparable, see `normalize_words`."""

_QUOTES = str.maketrans(
    {
        **dict.fromkeys("\u2019\u2018\u02bc\u00b4\u2032", "'"),
        **dict.fromkeys("\u201c\u201d\u201e\u00ab\u00bb\u300c\u300d", '"'),
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212", "-"),
        **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\u00ad"),
    }
)
_RAISED = re.compile("[\u00b2\u00b3\u00b9\u2070-\u209f\u00bc-\u00be\u2150-\u2189]")
_AROUND = "*_`'\"$ "
_CLOSING = " \t\n\r\f\v\u00a0.,;:?\u3002\uff0c\uff1b\uff1a\uff1f\uff01*_`'\"$"


def normalize_words(text: str, form: UnicodeForm = "NFKC", ignore_case: bool = True) -> str:
    """Returns words with single blanks, without marks, quotes and closing punctuation around them.

    Args:
        text: the words.
        form: NFKC: full-width letters, ligatures and composed letters are as their plain ones, but raised and lowered
            figures and fractions stay what they are; NFC: only composed letters; none: as written.
        ignore_case: whether upper and lower case are the same.
    """
    if form == "NFC":
        text = unicodedata.normalize("NFC", text)
    elif form == "NFKC":
        pieces = re.split(f"({_RAISED.pattern})", text)
        text = "".join(
            piece if index % 2 else unicodedata.normalize("NFKC", piece) for index, piece in enumerate(pieces)
        )
    text = " ".join((text.casefold() if ignore_case else text).translate(_QUOTES).split()).strip(_AROUND)
    while (shorter := _without_closing(text)) != text and shorter:
        text = shorter
    return text.lstrip("\u00a1\u00bf" + _AROUND)


def _without_closing(text: str) -> str:
    """The text without closing punctuation; of exclamation marks those behind a word or a mark: 5! is a factorial."""
    shorter = text.rstrip(_CLOSING)
    before = shorter.rstrip("!")
    return before if before[-1:].isalpha() or before[-1:] in tuple(" *_`'\"") else shorter
