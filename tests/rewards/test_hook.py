"""The counts reach every verdict, whatever verifier gave it."""

import pytest

from rlsp_async.messages import VerifyItem
from rlsp_async.verifying import fork_server
from rlsp_async.verifying.base import load_verifier

COUNTS = {"backtracks", "checks", "alternatives", "search_steps"}


@pytest.mark.parametrize(
    ("verifier", "prompt", "response", "answer", "steps"),
    [
        ("exact", "", "It is 8. Wait, 8 is even. <answer>7</answer>", "7", 1.0),
        ("countdown", "", "30+100-93 = 37. 93-(100-30) = 23 <answer>93-(100-30)</answer>", "30 93 100 -> 23", 2.0),
        ("ops", "1 1 3 4 -> 7 <think>", "x x 1 * 1 1 * 3 3 + 4 7 ?= 7 ok </think> * * +", "7", 1.0),
    ],
)
def test_the_checker_adds_them(verifier, prompt, response, answer, steps):
    item = VerifyItem(prompt=prompt, response=response, answer=answer)
    verdict = fork_server.judge_item(load_verifier(verifier), f"{verifier}/1", item)
    assert verdict.status == "correct"
    assert set(verdict.parts) >= COUNTS | {"correct", "format"}
    assert verdict.parts["search_steps"] == steps
