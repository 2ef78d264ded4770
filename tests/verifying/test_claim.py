"""Claims of an environment become verdicts, and stand beside the verdict of a verifier that reads texts."""

import pytest

from rlsp_async.errors import ConfigError, DataError
from rlsp_async.messages import VerifyItem
from rlsp_async.verifying.base import load_verifier
from rlsp_async.verifying.fork_server import judge_item

CLAIM = load_verifier("claim", {"environment": "calculator"})


def judged(verifier, claim, ended="done", response="</think> 3"):
    item = VerifyItem(prompt="1 + 2 <think>", response=response, answer="3", claim=claim, ended=ended)
    return judge_item(verifier, verifier.name, item)


@pytest.mark.parametrize(
    ("claim", "ended", "status", "correct"),
    [
        ({"correct": 1.0, "calls": 2.0}, "done", "correct", 1.0),
        ({"correct": 0.0}, "done", "wrong", 0.0),
        ({"correct": 0.5}, "done", "wrong", 0.0),
        ({"score": 1.0}, "done", "correct", 1.0),
        ({"calls": 2.0}, "done", "unparsable", 0.0),
        ({}, "max_turns", "unparsable", 0.0),
        ({}, "max_tokens", "unparsable", 0.0),
    ],
)
def test_a_claim_becomes_a_verdict(claim, ended, status, correct):
    verdict = judged(CLAIM, claim, ended)
    assert (verdict.status, verdict.parts["correct"], verdict.verifier) == (status, correct, "env:calculator/1")
    assert verdict.parts.get("calls") == claim.get("calls")


def test_the_parts_of_a_claim_stand_beside_those_of_a_text_and_never_in_their_place():
    verdict = judged(load_verifier("addition"), {"correct": 0.0, "calls": 2.0})
    assert (verdict.status, verdict.parts["correct"], verdict.parts["calls"]) == ("correct", 1.0, 2.0)
    assert verdict.verifier == "addition/1"
    wrong = judged(load_verifier("addition"), {"correct": 1.0}, response="</think> 4")
    assert (wrong.status, wrong.parts["correct"]) == ("wrong", 0.0)


def test_a_text_alone_is_no_claim():
    with pytest.raises(DataError, match="this text is of none"):
        CLAIM.judge("q", "r", "a")
    with pytest.raises(ConfigError, match=r"task\.environment\.name"):
        load_verifier("claim")
