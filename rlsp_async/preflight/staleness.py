"""How far a stage's batches can be behind the policy that learns, and whether its loss minds. For `rlsp check`."""

from __future__ import annotations

from rlsp_async.config import StageConfig
from rlsp_async.errors import ConfigError
from rlsp_async.preflight.estimate import admitted_lag

MOST_UPDATES = 8
"""Behind which a loss that corrects for nothing is still let pass without a word."""


def stale_warnings(name: str, stage: StageConfig) -> list[str]:
    """A sentence for a stage whose batches are off-policy and whose algorithm does nothing about it.

    A ratio to the policy at the beginning of the step bounds what happens within a step, not what happened before it.
    Imports the algorithm's module.
    """
    from rlsp_async.algos.base import load_algorithm

    if stage.source != "rollouts":
        return []
    try:
        module, options = load_algorithm(stage.algorithm)
    except ConfigError:
        return []  # no such algorithm: `check_modules` says so, with the stage's name
    if options.is_held() or getattr(module, "ON_POLICY", 1.0) is None:
        return []
    lag, within = admitted_lag(stage), options.carries() == "step"
    behind = stage.epochs * stage.minibatches * (lag + (not within))
    if behind <= MOST_UPDATES:
        return []
    kept = "bounds what happens within a step only" if within else "corrects for nothing"
    return [
        f"stages.{name}: a rollout is behind up to {behind} updates (lag {lag}, {stage.epochs} epochs x "
        f"{stage.minibatches} minibatches, max_uses {stage.max_uses}), and {stage.algorithm.name} with these "
        f"options {kept}: stale negatives can make it diverge; set weight_cap or corrections, or take a loss that "
        "has its own (docs/algorithms.md)"
    ]
