"""Verifier of column addition: are the digits after `</think>` the sum?

    score("3 4 7 + 1 0 9 + 9 9 5 <think>", "... </think> 1 4 5 1", "1451").status == "correct"

"search_steps" counts the looks (`x` or `ok`) that the response takes over its columns.
"""

from __future__ import annotations

from rlsp_async.messages import Verdict
from rlsp_async.verifying.base import judged, unparsable

VERSION = "1"
LANE = "fast"
MAX_DIGITS = 12


def score(prompt: str, response: str, answer: str) -> Verdict:
    """The verdict."""
    thinking, closed, tail = response.rpartition("</think>")
    words = (thinking if closed else response).split()
    steps = float(words.count("x") + words.count("ok"))
    if not closed:
        return unparsable("no </think>", search_steps=steps)
    digits = tail.split()
    if not 0 < len(digits) <= MAX_DIGITS or not all(len(digit) == 1 and digit in "0123456789" for digit in digits):
        return unparsable("no digits after </think>", search_steps=steps)
    return judged("".join(digits) == answer, " ".join(digits), search_steps=steps)
