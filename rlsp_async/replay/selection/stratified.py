"""Batches with a wanted share of correct rollouts: the composition of the data as a dial (TOPR, arXiv:2503.14286).

Groups stay whole, so the share is met as nearly as the ready groups allow: one after another, the group after which
the share so far is nearest to the wanted one, the first in the queue among equals. It never waits for a better one.
TOPR finds 0.1 to 0.2 best for its loss, and shows that a baseline c acts like a share: p (1 - c) / (1 + c (1 - 2 p)).
Demonstrations count as correct. It is a composition of outcomes: what exploration pays has no part in it.
"""

from __future__ import annotations

from rlsp_async.replay.records import GroupRecord
from rlsp_async.replay.selection.base import SelectedGroup, SelectionConfig, queue_order


class Config(SelectionConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `stratified`."""

    correct: float = 0.5
    """Wanted share of correct rollouts in a batch."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 <= self.correct <= 1.0:
            raise ValueError("correct must lie in 0..1")


def counts(record: GroupRecord) -> tuple[int, int]:
    """(correct, all) rollouts of a group."""
    return (
        (record.num_rollouts, record.num_rollouts)
        if record.num_correct < 0
        else (record.num_correct, record.num_rollouts)
    )


def choose(cfg: Config, ready: list[GroupRecord], step: int, num: int, seed: int) -> list[SelectedGroup]:
    """In the order in which they were taken."""
    strata: dict[tuple[int, int], list[GroupRecord]] = {}
    for record in sorted(ready, key=queue_order, reverse=True):
        strata.setdefault(counts(record), []).append(record)  # the next in turn stands last
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
