"""`prioritised`: groups are drawn at random, those with more signal and less lag more often.

    weight = decay^lag * (floor + (1 - floor) * signal^exponent)

With success rate p of a group, signal is 4 p (1 - p) for "variance" (of the outcome, divided by its largest value) and
2 sqrt(p (1 - p)) for "advantage" (mean |advantage| of the group divided by its standard deviation). Outcomes are right
or wrong. Where all outcomes are the same and an exploration reward can still tell the rollouts apart, signal is
`explored`: how much it tells is known only at the learner, where rewards are composed. A demonstration has signal 1.

Groups are drawn without replacement (Efraimidis and Spirakis 2006: the largest u^(1/weight)). u is a function of (seed,
step, group), so the draw does not depend on the order in which groups are given. The propensity is that of the first
draw.
"""

from __future__ import annotations

import math
import random
from typing import Annotated, Literal

from rlsp_async.config.ranges import Range
from rlsp_async.replay.ledger import lag
from rlsp_async.replay.records import GroupRecord
from rlsp_async.replay.selection.base import SelectedGroup, SelectionConfig


class PrioritisedConfig(SelectionConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `prioritised`."""

    by: Literal["variance", "advantage"] = "advantage"
    """Definition of signal: the variance of the outcome, or the mean absolute advantage."""
    exponent: Annotated[float, Range(ge=0, le=100)] = 1.0
    """0: signal does not matter."""
    decay: Annotated[float, Range(gt=0, le=1)] = 0.8
    """Weight lost by each version of lag; 1: lag does not matter."""
    floor: Annotated[float, Range(gt=0, le=1)] = 0.05
    """Weight of a group without signal, relative to one with the most."""
    explored: Annotated[float, Range(ge=0, le=1)] = 0.5
    """Signal of a group whose outcomes are all the same while an exploration reward can tell its rollouts apart."""


Config = PrioritisedConfig


def group_signal(record: GroupRecord, by: str, explored: float = 0.0) -> float:
    """Signal of a group, 0..1.

    Example: 2 of 8 correct -> .75 by variance, .8660 by advantage; 8 of 8 of different lengths -> explored.
    """
    if record.num_correct < 0 or not record.num_rollouts:
        return 1.0
    p = record.num_correct / record.num_rollouts
    variance = 4.0 * p * (1.0 - p)
    if not variance and record.has_signal:
        return explored
    return variance if by == "variance" else math.sqrt(variance)


def group_weight(cfg: PrioritisedConfig, record: GroupRecord, step: int) -> float:
    """Relative weight of a group in the draw, above 0 and at most 1."""
    return float(
        cfg.decay ** lag(record, step)
        * (cfg.floor + (1.0 - cfg.floor) * group_signal(record, cfg.by, cfg.explored) ** cfg.exponent)
    )


def choose(cfg: PrioritisedConfig, ready: list[GroupRecord], step: int, num: int, seed: int) -> list[SelectedGroup]:
    """`num` groups in the order in which they were drawn."""
    weights = {record.group_id: group_weight(cfg, record, step) for record in ready}
    mean = sum(weights[record.group_id] for record in sorted(ready, key=lambda record: record.group_id)) / len(ready)
    drawn = sorted(
        ready, key=lambda record: (_key(weights[record.group_id], seed, step, record.group_id), record.group_id)
    )
    return [SelectedGroup(record, weights[record.group_id] / mean) for record in drawn[:num]]


def _key(weight: float, seed: int, step: int, group_id: int) -> float:
    """-log(u) / weight, an exponential variable with rate `weight`: the smallest key is the largest u^(1/weight)."""
    u = random.Random(f"{seed}/{step}/{group_id}").random()
    return -math.log(1.0 - u) / weight
