"""The verifier `abstain`: what counts as an abstention, and its score."""

import pytest

from rlsp_async.errors import ConfigError
from rlsp_async.verifying.base import load_verifier

SCORE = load_verifier("abstain").judge


@pytest.mark.parametrize(
    "response",
    [
        "<answer>I don't know</answer>",
        "<answer>I don\u2019t know.</answer>",
        "\\boxed{\\text{unknown}}",
        "The answer is unknown.",
        "I thought of 42 first.\nI do not know.",
        "#### cannot be determined",
        "IDK",
        "<answer>The value is unknown.</answer>",
        "Sorry, I don't know the answer to this question.",
        "<answer>It cannot be determined from the given information.</answer>",
        "The answer is: not enough information",
        "\\boxed{\\text{I do not know}}",
        "\u4e0d\u77e5\u9053",
        "<answer>Je ne sais pas.</answer>",
    ],
)
def test_an_abstention_is_neither_right_nor_worthless(response: str) -> None:
    verdict = SCORE("", response, "42")
    assert (verdict.status, verdict.parts) == ("wrong", {"correct": 0.0, "format": 1.0, "abstained": 1.0, "score": 0.2})


@pytest.mark.parametrize(
    ("response", "status", "value"),
    [
        ("<answer>42</answer>", "correct", 1.0),
        ("<answer>43</answer>", "wrong", 0.0),
        ("", "unparsable", 0.0),
        ("I don't know whether I am right, but \\boxed{42}", "correct", 1.0),
        ("unknownish\n\\boxed{43}", "wrong", 0.0),
        ("I don't know. Then I did the sum: 40 + 2.\nThe answer is 42.", "correct", 1.0),
        ("<think>I don't know</think> \\boxed{42}", "correct", 1.0),
        ("I don't know the formula by heart, but \\boxed{42}", "correct", 1.0),
        ("<answer>The unknown number is 42</answer>", "correct", 1.0),
        ("<answer>The unknown number is 43</answer>", "wrong", 0.0),
        ("<answer>I'm not sure, but 42</answer>", "correct", 1.0),
        ("<answer>not unknown</answer>", "wrong", 0.0),
        ("<answer>the unknown soldier</answer>", "wrong", 0.0),
        ("<think>I don't know", "unparsable", 0.0),
    ],
)
def test_doubts_on_the_way_are_no_abstention(response: str, status: str, value: float) -> None:
    verdict = SCORE("", response, "42")
    assert verdict.status == status
    assert (verdict.parts["abstained"], verdict.parts["score"]) == (0.0, value)


def test_a_question_without_an_answer() -> None:
    assert SCORE("", "<answer>unknown</answer>", "cannot be determined").parts["score"] == 1.0
    assert SCORE("", "<answer>42</answer>", "unanswerable").status == "wrong"


def test_an_essay_that_mentions_the_words_does_not_abstain() -> None:
    essay = "It is a long story in which nobody can say I don't know without being asked why"
    assert SCORE("", f"<answer>{essay}</answer>", "42").parts["abstained"] == 0.0


def test_options() -> None:
    score = load_verifier("abstain", {"value": 0.5, "phrases": ["pass"], "inner": "exact"}).judge
    assert score("", "<answer>Pass!</answer>", "red").parts["score"] == 0.5
    assert score("", "<answer>unknown</answer>", "unknown").status == "correct"
    with pytest.raises(ConfigError, match="value = 2.0: must be a number at least 0 and at most 1"):
        load_verifier("abstain", {"value": 2.0})
