"""What is least off-policy is trained first; the rest waits until it is stale."""

from __future__ import annotations

from rlsp_async.replay.records import GroupRecord
from rlsp_async.replay.selection.base import SelectedGroup, SelectionConfig, queue_order


class Config(SelectionConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`freshest` has only the options that every choice has."""


def choose(cfg: Config, ready: list[GroupRecord], step: int, num: int, seed: int) -> list[SelectedGroup]:
    """By the version of the oldest token, newest first."""
    return [
        SelectedGroup(record)
        for record in sorted(ready, key=lambda record: (-record.oldest, *queue_order(record)))[:num]
    ]
