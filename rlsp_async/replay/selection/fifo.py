"""`fifo`: the group that was ready first is trained first."""

from __future__ import annotations

from rlsp_async.replay.records import GroupRecord
from rlsp_async.replay.selection.base import SelectedGroup, SelectionConfig, queue_order


class FifoConfig(SelectionConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`fifo` has only the options that every selection has."""


Config = FifoConfig


def choose(cfg: FifoConfig, ready: list[GroupRecord], step: int, num: int, seed: int) -> list[SelectedGroup]:
    """The first groups in the order of the queue."""
    return [SelectedGroup(record) for record in sorted(ready, key=queue_order)[:num]]
