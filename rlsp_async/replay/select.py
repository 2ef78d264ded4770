"""Which groups may train, and how many are made: age, reuse and rate, functions over heads.

lag = (s - 1) - version of the group's OLDEST token, for the batch of step s, time in the queue included; 0 for a
demonstration. Which of those that may train do so is the choice of the stage: `choices/`.
"""

from __future__ import annotations

from collections.abc import Iterable

from rlsp_async.replay.records import GroupRecord


def lag(head: GroupRecord, step: int) -> int:
    """Versions between the oldest token of a group and the weights that step `step` starts from."""
    return 0 if head.provenance == "demonstration" else step - 1 - head.oldest


def is_stale(head: GroupRecord, step: int, max_lag: int) -> bool:
    """Removal: too old for the batch of `step`."""
    return lag(head, step) > max_lag


def fresh(ready: Iterable[GroupRecord], step: int, max_lag: int) -> list[GroupRecord]:
    """The ready groups that may be in the batch of `step`."""
    return [head for head in ready if not is_stale(head, step, max_lag)]


def returns(head: GroupRecord, step: int, max_lag: int, max_uses: int) -> bool:
    """Reuse: whether a group that was just trained goes back to ready, to be trained at `step` or later."""
    return head.uses < max_uses and not is_stale(head, step, max_lag)


def num_to_admit(alive: int, capacity: int, waiting: int, needed: int | None) -> int:
    """Rate: slots that may be filled now.

    alive <= capacity is the slot law; `waiting` groups are on their way to a batch and `needed` groups are still to be
    trained in this stage (None: unknown, because groups are used more than once).
    """
    room = capacity - alive
    return max(0, room if needed is None else min(room, needed - waiting))
