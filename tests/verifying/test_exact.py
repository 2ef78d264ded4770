"""The verifier `exact`: answers that are words."""

from __future__ import annotations

import pytest

from rlsp_async.errors import DataError
from rlsp_async.verifying.exact import score


@pytest.mark.parametrize(
    ("response", "answer", "status"),
    [
        ("<answer> Yes. </answer>", "yes", "correct"),
        ("\\boxed{new  York}", "New York", "correct"),
        ("so\nThe answer is **Paris**.", "paris", "correct"),
        ("hm\nParis", "Paris", "correct"),
        ("<answer>no</answer>", "yes", "wrong"),
        ("yes or no, who knows, let me think of it again", "yes", "unparsable"),
        ("", "yes", "unparsable"),
    ],
)
def test_verdicts(response: str, answer: str, status: str) -> None:
    assert score("", response, answer).status == status


def test_empty_reference() -> None:
    with pytest.raises(DataError, match="empty"):
        score("", "x", " ** ")
