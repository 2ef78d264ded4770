"""The verifier `choice`: what counts as committing to an option."""

import pytest

from rlsp_async.errors import ConfigError, DataError
from rlsp_async.verifying.base import load_verifier

PROMPT = "Which colour has the sky?\nA) red\nB) blue\nC. dark green\n(D) A, B or C"
LETTERS = load_verifier("choice")
WORDS = load_verifier("choice", {"labels": ["yes", "no", "maybe"]})


@pytest.mark.parametrize(
    "response",
    [
        "<answer>B</answer>",
        "<answer>(B)</answer>",
        "<answer> B) blue </answer>",
        "\\boxed{B}",
        "\\boxed{\\text{(B)}}",
        "The answer is B.",
        "The answer is (B) because of Rayleigh.",
        "the answer is **B**",
        "#### B",
        "B",
        "B.",
        "(B)",
        "b",
        "I think of A) first.\n\nFinal choice: option B",
        "**B) blue**",
        "The answer is blue.",
        "<answer>Blue</answer>",
        "A) is wrong, C. is wrong.\nB) is what remains",
        "<think>The answer is C</think> (B)",
        "Answer: B",
        "Option B",
        "It could be (A), no: (B)",
        "The answer is B, blue.",
        "Answer: $B$",
    ],
)
def test_what_commits_to_b(response: str) -> None:
    verdict = LETTERS.judge(PROMPT, response, "B")
    assert (verdict.status, verdict.extracted) == ("correct", "B")
    assert LETTERS.judge(PROMPT, response, "C").status == "wrong"
    assert LETTERS.judge(PROMPT, response, "blue").status == "correct"


@pytest.mark.parametrize(
    "response",
    [
        "",
        "I do not know.",
        "A sky is a thing.",
        "Better ask a physicist. I am A Person.",
        "<answer>purple</answer>",
        "The answer is a colour",
    ],
)
def test_what_commits_to_nothing(response: str) -> None:
    assert LETTERS.judge(PROMPT, response, "A").status == "unparsable"


@pytest.mark.parametrize(
    ("response", "status"),
    [
        ("<answer>A and C</answer>", "correct"),
        ("The answer is C, A.", "correct"),
        ("\\boxed{AC}", "correct"),
        ("<answer>A</answer>", "wrong"),
        ("<answer>A, B, C</answer>", "wrong"),
    ],
)
def test_several_labels_are_a_set(response: str, status: str) -> None:
    assert LETTERS.judge("Which two?", response, "A, C").status == status


@pytest.mark.parametrize(
    ("response", "extracted"),
    [
        ("Yes, it is.", "yes"),
        ("<answer>No</answer>", "no"),
        ("First I said no. Then: yes", "yes"),
        ("YES", "yes"),
        ("The answer is maybe.", "maybe"),
        ("I know nothing", ""),
        ("yesterday", ""),
    ],
)
def test_labels_may_be_words(response: str, extracted: str) -> None:
    verdict = WORDS.judge("Is it?", response, "yes")
    assert verdict.extracted == extracted
    assert verdict.status == {"yes": "correct", "": "unparsable"}.get(extracted, "wrong")


def test_a_text_that_stands_twice_names_no_option() -> None:
    assert LETTERS.judge("A) same\nB) same", "<answer>same</answer>", "A").status == "unparsable"


def test_options_on_one_line() -> None:
    assert LETTERS.judge("Pick: (A) red (B) blue (C) green", "<answer>green</answer>", "C").status == "correct"


def test_bad_data_and_bad_options() -> None:
    with pytest.raises(DataError, match="'Z' is neither a label .A, B"):
        LETTERS.judge(PROMPT, "B", "Z")
    with pytest.raises(ConfigError, match="labels must be two or more"):
        load_verifier("choice", {"labels": ["A"]})


def test_every_label_is_its_own_gold() -> None:
    for label in "ABCDEFGHIJ":
        assert LETTERS.judge("", f"So it is ({label}).", label).status == "correct"
