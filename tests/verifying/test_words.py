"""Words made comparable."""

from __future__ import annotations

import pytest

from rlsp_async.verifying.words import normalize_words
from tests.verifying.growth import grows_linearly


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        (" **Yes!** ", "yes"),
        ("Yes.", "yes"),
        ("yes...", "yes"),
        ("Yes?", "yes"),
        ("\u201cYes.\u201d", "yes"),
        ('"Yes".', "yes"),
        ("`yes`", "yes"),
        ("\u662f\u3002", "\u662f"),
        ("\u00bfSi?", "si"),
        ("new \u00a0 York\n", "new york"),
        ("It\u2019s", "it's"),
        ("well\u2011known", "well-known"),
        ("\uff39\uff25\uff33", "yes"),
        ("\ufb01sh", "fish"),
        ("cafe\u0301", "caf\u00e9"),
        ("STRASSE", "strasse"),
        ("Stra\u00dfe", "strasse"),
        ("ze\u200bro", "zero"),
        ("5!", "5!"),
        ("n!", "n"),
        ("x\u00b2", "x\u00b2"),
        ("H\u2082O", "h\u2082o"),
        ("\u00bd", "\u00bd"),
        ("?", "?"),
        ("C++", "c++"),
        ("50%", "50%"),
        ("U.S.", "u.s"),
        ("", ""),
        (" ** ", ""),
    ],
)
def test_plain(text: str, plain: str) -> None:
    assert normalize_words(text) == plain


def test_forms() -> None:
    assert normalize_words("\uff39es", "NFC") == "\uff59es"
    assert normalize_words("cafe\u0301", "NFC") == "caf\u00e9"
    assert normalize_words("cafe\u0301", "none") == "cafe\u0301"


def test_case() -> None:
    assert normalize_words("Paris!", ignore_case=False) == "Paris"


@pytest.mark.parametrize("piece", [".", "., ", "!", "? !", " ", "* "])
def test_many_marks_take_linear_time(piece: str) -> None:
    assert grows_linearly(lambda num: normalize_words(piece * (num // len(piece)) + " x"), 5_000)


def test_exclamation_marks_close_words_and_not_figures() -> None:
    assert [normalize_words(text) for text in ("Paris!!", "5!", "x!?")] == ["paris", "5!", "x"]
