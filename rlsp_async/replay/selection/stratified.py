"""`stratified`: batches with a wanted share of correct rollouts (TOPR, arXiv:2503.14286: the composition of the data).

Groups stay whole, so the share is met as nearly as the ready groups allow. Groups are taken one after another: each
time the group after which the share so far is nearest to the wanted one, and among equals the first in the queue. The
selection never waits for a better group.

TOPR finds 0.1 to 0.2 best for its loss, and shows that a baseline c acts like a share: p (1 - c) / (1 + c (1 - 2 p)).
Demonstrations count as correct. Exploration rewards have no influence.
"""

from __future__ import annotations

from typing import Annotated

from rlsp_async.config.ranges import Range
from rlsp_async.replay.records import GroupRecord
from rlsp_async.replay.selection.base import SelectedGroup, SelectionConfig, queue_order


class StratifiedConfig(SelectionConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `stratified`."""

    correct: Annotated[float, Range(ge=0, le=1)] = 0.5
    """Wanted share of correct rollouts in a batch."""


Config = StratifiedConfig


def correct_and_all(record: GroupRecord) -> tuple[int, int]:
    """(correct, all) rollouts of a group."""
    return (
        (record.num_rollouts, record.num_rollouts)
        if record.num_correct < 0
        else (record.num_correct, record.num_rollouts)
    )


def choose(cfg: StratifiedConfig, ready: list[GroupRecord], step: int, num: int, seed: int) -> list[SelectedGroup]:
    """`num` groups in the order in which they were taken."""
    strata: dict[tuple[int, int], list[GroupRecord]] = {}
    for record in sorted(ready, key=queue_order, reverse=True):
        strata.setdefault(correct_and_all(record), []).append(record)  # the first of the queue stands last
    chosen: list[SelectedGroup] = []
    right = total = 0
    for _ in range(num):
        best = min(
            strata,
            key=lambda key: (
                abs((right + key[0]) / max(1, total + key[1]) - cfg.correct),
                queue_order(strata[key][-1]),
            ),
        )
        chosen.append(SelectedGroup(strata[best].pop()))
        right, total = right + best[0], total + best[1]
        if not strata[best]:
            del strata[best]
    return chosen
