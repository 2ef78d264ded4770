"""The verifier `exact`: answers that are words."""

from __future__ import annotations

import pytest

from rlsp_async.errors import DataError
from rlsp_async.verifying.base import load_verifier
from rlsp_async.verifying.exact import score


@pytest.mark.parametrize(
    ("response", "answer", "status"),
    [
        ("<answer> Yes. </answer>", "yes", "correct"),
        ("\\boxed{new  York}", "New York", "correct"),
        ("\\boxed{\\text{New York}}", "New York", "correct"),
        ("so\nThe answer is **Paris**.", "paris", "correct"),
        ("so\nThe answer is $\\text{Paris}$.", "paris", "correct"),
        ("hm\nParis", "Paris", "correct"),
        ("Yes!", "yes", "correct"),
        ("Yes", "yes!", "correct"),
        ("\u201cParis\u201d", "Paris", "correct"),
        ("'Paris'", "Paris", "correct"),
        ("The answer is yes, because it rains.", "yes", "correct"),
        ("The answer is yes since it rains.", "yes", "correct"),
        ("The answer is Paris, not Rome.", "Paris", "correct"),
        ("Answer: cafe\u0301", "caf\u00e9", "correct"),
        ("\uff30aris", "Paris", "correct"),
        ("[THINK]Rome[/THINK]Paris", "Paris", "correct"),
        ("\u7b54\u6848\uff1a\u5df4\u9ece\u3002", "\u5df4\u9ece", "correct"),
        ("\\boxed{Paris} \\boxed{Paris}", "Paris", "correct"),
        ("rock, paper", "Rock, paper.", "correct"),
        ("<answer>no</answer>", "yes", "wrong"),
        ("<answer>yes or no</answer>", "yes", "wrong"),
        ("The answer is red, white and blue.", "red", "wrong"),
        ("The answer is not Paris.", "Paris", "wrong"),
        ("\\boxed{Paris} or \\boxed{Rome}", "Paris", "wrong"),
        ("\\boxed{Paris} or \\boxed{Rome}", "Rome", "wrong"),
        ("x\u00b2", "x2", "wrong"),
        ("5!", "5", "wrong"),
        ("Parisian", "Paris", "wrong"),
        ("yes or no, who knows, let me think of it again", "yes", "unparsable"),
        ("<think>yes", "yes", "unparsable"),
        ("\\boxed{yes", "yes", "unparsable"),
        ("", "yes", "unparsable"),
    ],
)
def test_verdicts(response: str, answer: str, status: str) -> None:
    assert score("", response, answer).status == status


def test_empty_reference() -> None:
    with pytest.raises(DataError, match="empty"):
        score("", "x", " ** ")


def test_options() -> None:
    strict = load_verifier("exact", {"ignore_case": False, "unicode": "NFC"})
    assert strict.judge("", "Paris", "Paris").status == "correct"
    assert strict.judge("", "paris", "Paris").status == "wrong"
    assert strict.judge("", "\uff30aris", "Paris").status == "wrong"
    marks = load_verifier("exact", {"thinking": [["{{", "}}"]]})
    assert marks.judge("", "{{Rome}}Paris", "Paris").status == "correct"
