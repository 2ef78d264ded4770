"""One spelling for one thing."""

from __future__ import annotations

import pytest

from rlsp_async.verifying.math.normalize import normalize_spelling


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("\uff11\uff12\uff13", "123"),
        ("3\u00bd", "3\\frac{1}{2}"),
        ("\u22125", "-5"),
        ("x\u00b2", "x^{2}"),
        ("\u221a2", "\\sqrt{2}"),
        ("**7**", "7"),
        ("$x\\leqslant 2$", "x\\le 2"),
        ("1\\,000", "1000"),
        ("10,\\!000", "10,000"),
        ("\\dfrac12", "\\frac12"),
    ],
)
def test_spelling(text: str, spelled: str) -> None:
    assert normalize_spelling(text) == spelled
