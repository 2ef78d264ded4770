"""Who is warned of stale batches: who does nothing about them."""

from __future__ import annotations

from typing import Any

import pytest

from rlsp_async.config import AlgorithmChoice, StageConfig
from rlsp_async.preflight.settings import staleness_warnings

REUSED = {"max_uses": 2, "max_lag": 8}


def warned(name: str, preset: str = "", options: dict[str, Any] | None = None, **stage: Any) -> str:
    algorithm = AlgorithmChoice(name=name, preset=preset, options=options or {})
    return "".join(staleness_warnings("rl", StageConfig(algorithm=algorithm, **stage)))


@pytest.mark.parametrize(
    ("name", "preset", "options"),
    [("reinforce", "", {}), ("rloo", "", {}), ("rover", "", {}), ("reinforce", "", {"corrections": {"ess_base": 1.0}})],
)
def test_a_loss_that_corrects_for_nothing_is_warned_of(name: str, preset: str, options: dict[str, Any]):
    text = warned(name, preset, options, **REUSED)
    assert "stages.rl: a rollout is behind up to 9 updates (lag 8, 1 epochs x 1 minibatches, max_uses 2)" in text
    assert "corrects for nothing" in text
    assert warned(name, preset, options) == ""  # one step of lag, one update a step


@pytest.mark.parametrize(
    ("name", "preset", "options"),
    [
        ("grpo", "", {}),
        ("ppo", "rlsp_cpu", {}),
        ("reinforce_pp", "", {}),
        ("gspo", "", {}),
        ("cispo", "", {}),
        ("topr", "paper", {}),
        ("oapl", "", {}),
        ("reinforce", "aipo", {}),
        ("reinforce", "dro", {}),
        ("dpo", "", {}),
        ("rloo", "", {"corrections": {"mask": "icepop"}}),
        ("grpo", "icepop", {}),
    ],
)
def test_one_that_minds_is_not(name: str, preset: str, options: dict[str, Any]):
    assert warned(name, preset, options, epochs=4, minibatches=4, target_lag=8, **REUSED) == ""


def test_a_clip_around_the_beginning_of_the_step_minds_the_step_only():
    assert warned("grpo", "dapo", epochs=4, minibatches=4, target_lag=0) == ""
    text = warned("grpo", "dapo", minibatches=4, **REUSED)
    assert "behind up to 32 updates" in text
    assert "bounds what happens within a step only" in text


def test_demonstrations_are_nobodys_and_an_unknown_name_is_for_somebody_else_to_say():
    assert warned("reinforce", source="demonstrations", max_uses=9, epochs=9) == ""
    assert warned("no_such", **REUSED) == ""
