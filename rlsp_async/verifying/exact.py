"""Verifier for answers that are words: equal apart from blanks, case, surrounding marks and a final full stop.

score("Is it?", "<answer> Yes. </answer>", "yes").status == "correct"
"""

from __future__ import annotations

from rlsp_async.errors import DataError
from rlsp_async.messages import Verdict
from rlsp_async.verifying.base import make_unparsable, make_verdict
from rlsp_async.verifying.extract import find_answer, normalize_words

VERSION = "1"
LANE = "fast"


def reference_response(answer: str, demonstration: str) -> str:
    """A response that gives a reference answer, for the check before a run."""
    return f"<answer>{answer}</answer>"


def score(prompt: str, response: str, answer: str) -> Verdict:
    """Returns the verdict.

    Raises:
        DataError: the reference answer is empty.
    """
    gold = normalize_words(answer)
    if not gold:
        raise DataError("the reference answer is empty")
    extracted = find_answer(response, numbers=False)
    if extracted is None:
        lines = response.rpartition("</think>")[2].strip().splitlines()
        extracted = lines[-1] if lines and len(lines[-1]) <= len(answer) + 20 else None
    return (
        make_unparsable("no answer found")
        if extracted is None
        else make_verdict(normalize_words(extracted) == gold, extracted)
    )
