"""The verifier `format`: tags in order, each once."""

import pytest

from rlsp_async.errors import ConfigError
from rlsp_async.verifying.base import load_verifier

GOOD = "<think>2 and 2</think>\n<answer>4</answer>"


def parts(response: str, **options: object) -> tuple[str, float, str]:
    verdict = load_verifier("format", options).judge("", response, "4")
    return verdict.status, round(verdict.parts["format"], 2), verdict.detail


def test_every_rule_holds() -> None:
    assert parts(GOOD) == ("correct", 1.0, "")


@pytest.mark.parametrize(
    ("response", "share", "why"),
    [
        ("<answer>4</answer><think>x</think>", 0.75, "do not follow each other as think, answer"),
        ("<think>x</think> so <answer>4</answer>", 0.75, "text outside the tags"),
        ("<think>x</think><answer> </answer>", 0.75, "<answer> occurs 1 times"),
        ("<think>x</think>", 0.5, "<answer> occurs 0 times"),
        ("<think>x</think><answer>4</answer><answer>5</answer>", 0.5, "<answer> occurs 2 times"),
        ("<think>x<answer>4</answer>", 0.25, "<think> occurs 1 times"),
        ("4", 0.0, "<think> occurs 0 times"),
    ],
)
def test_each_broken_rule_costs_its_share(response: str, share: float, why: str) -> None:
    status, found, detail = parts(response)
    assert (status, found) == ("wrong", share)
    assert why in detail


def test_the_prompt_may_open_the_first_tag() -> None:
    assert parts("2 and 2</think><answer>4</answer>", prompt_opens=True)[0] == "correct"
    assert parts(GOOD, prompt_opens=True)[0] == "wrong"


def test_text_may_be_allowed_outside_and_a_pattern_asked_for() -> None:
    assert parts("Well. " + GOOD, text_outside=True)[0] == "correct"
    assert parts(GOOD, pattern=r"\d</answer>")[0] == "correct"
    assert parts(GOOD, pattern="wait")[1:] == (0.8, "the pattern is not found")
    assert parts("wait", tags=[], pattern="wait")[0] == "correct"


def test_around_another_verifier() -> None:
    options = {"inner": "math"}
    assert parts(GOOD, **options) == ("correct", 1.0, "")
    assert parts("so \\boxed{4}", **options) == ("correct", 0.0, "")
    assert parts(GOOD.replace("4", "5"), **options)[:2] == ("wrong", 1.0)
    verdict = load_verifier("format", {"inner": "math", "strict": True}).judge("", "so \\boxed{4}", "4")
    assert (verdict.status, verdict.parts) == ("wrong", {"correct": 0.0, "format": 0.0})


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"tags": ["a b"]}, "tags must be different names"),
        ({"tags": ["a", "a"]}, "tags must be different names"),
        ({"tags": []}, "there is no rule"),
        ({"pattern": "("}, "is not a regular expression"),
        ({"inner": "tests.verifying.own_verifier"}, "runs in the network lane"),
        ({"inner": "maths"}, "did you mean 'math'"),
    ],
)
def test_bad_options(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        load_verifier("format", options)
