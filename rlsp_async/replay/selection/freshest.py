"""`freshest`: the least off-policy group is trained first; the others wait until they are stale."""

from __future__ import annotations

from rlsp_async.replay.records import GroupRecord
from rlsp_async.replay.selection.base import SelectedGroup, SelectionConfig, queue_order


class FreshestConfig(SelectionConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`freshest` has only the options that every selection has."""


Config = FreshestConfig


def choose(cfg: FreshestConfig, ready: list[GroupRecord], step: int, num: int, seed: int) -> list[SelectedGroup]:
    """The groups with the newest oldest tokens, newest first; ties are broken by the order of the queue."""
    freshest = sorted(ready, key=lambda record: (-record.oldest, *queue_order(record)))
    return [SelectedGroup(record) for record in freshest[:num]]
