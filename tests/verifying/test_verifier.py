"""Finding a verifier by its name; the laws that every shipped one keeps."""

from __future__ import annotations

import pytest

from rlsp_async import config
from rlsp_async.errors import ConfigError
from rlsp_async.modules import known_names
from rlsp_async.verifying.verifier import NEEDS, PACKAGE, load_verifier, verifier_name

GOLD = {"ops": ("1 2 -> 3 <think>", "</think> +", "3"), "countdown": ("", "<answer>1+2</answer>", "1 2 -> 3"),
        "math": ("", "\\boxed{3}", "3"), "exact": ("", "<answer>a</answer>", "a")}


def test_verifiers_that_ship() -> None:
    assert set(known_names(PACKAGE, NEEDS)) == set(GOLD)


@pytest.mark.parametrize("name", GOLD)
def test_contract(name: str) -> None:
    verifier, (prompt, response, answer) = load_verifier(name), GOLD[name]
    right, nothing = verifier.score(prompt, response, answer), verifier.score(prompt, "", answer)
    assert (right.status, right.parts["correct"], right.parts["format"]) == ("correct", 1.0, 1.0)
    assert (nothing.status, nothing.parts["correct"], nothing.parts["format"]) == ("unparsable", 0.0, 0.0)
    assert right.parts.keys() == nothing.parts.keys()
    assert verifier.score(prompt, response, answer) == right
    assert isinstance(verifier.VERSION, str)


def test_unknown_verifier() -> None:
    with pytest.raises(ConfigError, match="unknown name 'maths'; did you mean 'math'"):
        load_verifier("maths")


def test_the_run_may_name_another_verifier_than_the_task() -> None:
    stages = {"s": config.Stage()}
    assert verifier_name(config.RunConfig(name="r", stages=stages)) == "ops"
    assert verifier_name(config.RunConfig(name="r", stages=stages, task=config.Task(verifier="exact"))) == "exact"
