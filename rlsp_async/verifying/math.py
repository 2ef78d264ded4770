"""Verifier of mathematical answers: find the answer's span, compare plain numbers exactly, and only then ask algebra.

    score("...", "... so \\boxed{1,234}", "1234").status == "correct"

Order: equal as tidy text; both plain numbers (`number.py`; units, currency and per-cent signs are put aside); equal as
expressions (`algebra.py`). An answer that could explode in a parser is unparsable, with the reason.
Parts: "correct" and "format" (1: an answer was found).
"""

from __future__ import annotations

import re

from rlsp_async.errors import DataError
from rlsp_async.messages import Verdict
from rlsp_async.verifying.algebra import equal, refusal
from rlsp_async.verifying.number import read_number
from rlsp_async.verifying.span import find_answer, strip_box
from rlsp_async.verifying.verifier import judged, unparsable

VERSION = "1"

_NOISE = re.compile(r"\\(?:left|right|displaystyle|[,;!: ])|\$|(?<!\w)\s+|\s+(?!\w)|\\text\s?\{([^{}]*)\}")


def score(prompt: str, response: str, answer: str) -> Verdict:
    """The verdict. Raises DataError when the reference answer cannot be read."""
    gold = strip_box(answer.strip())
    found = find_answer(response)
    if found is None:
        return unparsable("no answer found")
    if tidy(gold) == tidy(found):
        return judged(True, found)
    gold_number, found_number = read_number(gold), read_number(found)
    if gold_number is not None and found_number is not None:
        return judged(gold_number == found_number, found)
    return _by_algebra(gold, found)


def tidy(text: str) -> str:
    """Text without idle blanks, sizes, dollar signs and text commands, and without a full stop at the end."""
    return _NOISE.sub(r"\1", text).replace("dfrac", "frac").replace("tfrac", "frac").rstrip(".")


def _by_algebra(gold: str, found: str) -> Verdict:
    if why := refusal(gold):
        raise DataError(f"reference answer {gold[:80]!r} is refused: {why}")
    if why := refusal(found):
        return unparsable(f"limit: {why}")
    try:
        same = equal(_bare(gold), _bare(found))
    except ValueError as e:
        raise DataError(f"reference answer {gold[:80]!r} cannot be read: {e}") from None
    return unparsable("not a mathematical expression") if same is None else judged(same, found)


def _bare(text: str) -> str:
    """Without the dollar signs or brackets of LaTeX's math mode around it."""
    inner = text.strip().rstrip(".").strip("*").strip()
    for opening, closing in (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")):
        if inner.startswith(opening) and inner.endswith(closing) and len(inner) > len(opening + closing):
            return inner[len(opening) : -len(closing)].strip()
    return inner
