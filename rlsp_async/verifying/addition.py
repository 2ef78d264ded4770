"""Verifier of column addition: do the digits after `</think>` make the sum?

    score("3 4 7 + 1 0 9 + 9 9 5 <think>", "... </think> 1 4 5 1", "1451").status == "correct"

"search_steps" counts the checks (`x` or `ok`) that the response makes of its columns.
"""

from __future__ import annotations

from rlsp_async.messages import Verdict
from rlsp_async.verifying.base import make_unparsable, make_verdict

VERSION = "1"
LANE = "fast"
MAX_DIGITS = 12


def reference_response(answer: str, demonstration: str) -> str:
    """A response that gives a reference answer, for the check before a run."""
    return f"</think> {' '.join(answer)}"


def score(prompt: str, response: str, answer: str) -> Verdict:
    """Returns the verdict."""
    thinking, closed, tail = response.rpartition("</think>")
    words = (thinking if closed else response).split()
    steps = float(words.count("x") + words.count("ok"))
    if not closed:
        return make_unparsable("no </think>", search_steps=steps)
    digits = tail.split()
    if not 0 < len(digits) <= MAX_DIGITS or not all(len(digit) == 1 and digit in "0123456789" for digit in digits):
        return make_unparsable("no digits after </think>", search_steps=steps)
    return make_verdict("".join(digits) == answer, " ".join(digits), search_steps=steps)
