r"""Reference answers of which any one is right, as one text: `Prompt.answer` stays text in messages and journals.

    join_answers(["1/2", "0.5"])     # "1/2\x1e0.5"
    split_answers("1/2\x1e0.5")      # ["1/2", "0.5"]: a response with one of them is correct
    split_answers("{1, 2}")          # ["{1, 2}"]: an answer that is a set stays one text

The ASCII character RECORD SEPARATOR stands between them. A single answer has none, so every text that was written
before this form existed means what it meant.
"""

from __future__ import annotations

from collections.abc import Sequence

SEPARATOR = "\x1e"
MOST = 64
"""Acceptable answers of one prompt; each may cost the verifier's whole time."""


def join_answers(answers: Sequence[str]) -> str:
    """The acceptable answers of a prompt as its reference answer; equal ones once.

    Raises ValueError when there is none, when there are more than MOST, or when one contains the separator.
    """
    different = list(dict.fromkeys(answers))
    if not 0 < len(different) <= MOST:
        raise ValueError(f"{len(different)} acceptable answers; 1 to {MOST} can be judged")
    if any(SEPARATOR in answer for answer in different):
        raise ValueError("an answer contains the control character U+001E, which separates acceptable answers")
    return SEPARATOR.join(different)


def split_answers(answer: str) -> list[str]:
    """The acceptable answers in a reference answer; most have one."""
    return answer.split(SEPARATOR)


def show_answers(answer: str) -> str:
    """A reference answer for people: "1/2 or 0.5"."""
    return " or ".join(split_answers(answer))
