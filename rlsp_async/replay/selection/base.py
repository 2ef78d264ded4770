"""The contract of a selection: a module that offers `Config` (a `SelectionConfig`) and `choose`.

    stages.rlsp.selection = "prioritised"
    stages.rlsp.selection_options = { decay = 0.7, min_new = 0.5 }

    choose(cfg, ready, step, num, seed) -> list[SelectedGroup]

`ready` holds the records of at least `num` groups that are fresh enough, in arbitrary order. The result is `num` of
them in training order, each with its propensity. A selection is a pure function of its arguments: a restarted hub finds
the same groups ready and chooses the same. Lag and uses are checked outside, before and after.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated, Any, Literal, NamedTuple, Protocol, cast

from rlsp_async.config import Section, StageConfig
from rlsp_async.config.ranges import Range
from rlsp_async.errors import ConfigError
from rlsp_async.plugins import PluginFamily
from rlsp_async.replay.records import GroupRecord

SELECTIONS = PluginFamily(
    noun="selection",
    package="rlsp_async.replay.selection",
    setting="selection",
    options="selection_options",
    needs=("Config", "choose"),
)


class SelectedGroup(NamedTuple):
    """A group of the batch."""

    record: GroupRecord
    propensity: float = 1.0
    """Probability with which it was drawn first, relative to uniform; 1 for a selection without randomness."""


class SelectionConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of every selection. All but min_ready matter only with max_uses above 1."""

    min_ready: Annotated[int, Range(ge=0, le=10**9)] = 0
    """A batch waits until this many groups are ready, or all that the stage still needs; 0: the batch itself is enough.
    With (target_lag + 1) * groups_per_step every group is trained at a lag of exactly target_lag, after the start."""
    min_new: Annotated[float, Range(ge=0, le=1)] = 0.0
    """Rate of reuse: at least this share of a batch has never been trained before. The batch waits for them."""
    keep: Annotated[int, Range(ge=0, le=10**9)] = 0
    """At most this many groups wait for a further use; 0: as many as there are slots."""
    carry: Annotated[int, Range(ge=0, le=10**9)] = 0
    """At most this many groups that the stage before left ready for a further use are taken over; 0: none."""
    remove: Literal["oldest", "stalest", "most_used"] = "stalest"
    """Which group is removed first: longest in the queue, tokens of the oldest version, or trained most often."""


class SelectionModule(Protocol):
    """A module that is a selection."""

    Config: type[SelectionConfig]

    def choose(self, cfg: Any, ready: list[GroupRecord], step: int, num: int, seed: int) -> list[SelectedGroup]:
        """`num` of the ready groups, in training order."""


class StageSelection:
    """The selection of one stage with its options."""

    def __init__(self, module: SelectionModule, cfg: SelectionConfig, seed: int) -> None:
        self.cfg = cfg
        self._module, self._seed = module, seed

    def batch(
        self, fresh: list[GroupRecord], step: int, num: int, num_steps_left: int = 1
    ) -> list[SelectedGroup] | None:
        """The batch of `step`; None when there are not enough groups, or not enough new ones.

        `num_steps_left` is the number of steps that the stage still trains, this one included.
        """
        new = [record for record in fresh if not record.uses]
        quota = num_new_needed(self.cfg, num)
        if len(fresh) < num_ready_needed(self.cfg, num, num_steps_left) or len(new) < quota:
            return None
        if not quota:
            return self._module.choose(self.cfg, fresh, step, num, self._seed)
        first = self._module.choose(self.cfg, new, step, quota, self._seed) if quota < num else []
        taken = {selected.record.group_id for selected in first}
        rest = [record for record in (fresh if first else new) if record.group_id not in taken]
        return first + self._module.choose(self.cfg, rest, step, num - len(first), self._seed)


def num_ready_needed(cfg: SelectionConfig, num: int, num_steps_left: int) -> int:
    """Number of groups that must be ready before a batch of `num` is chosen: `min_ready`, and towards the end of the
    stage no more than its remaining steps need."""
    return max(num, min(cfg.min_ready, num * num_steps_left))


def num_new_needed(cfg: SelectionConfig, num: int) -> int:
    """Number of groups of a batch that must never have been trained. Example: min_new .5 of 5 -> 3."""
    return math.ceil(cfg.min_new * num)


def groups_above_keep(cfg: SelectionConfig, ready: Iterable[GroupRecord]) -> list[GroupRecord]:
    """Used groups to remove so that at most `keep` are left, first to be removed first."""
    used = [record for record in ready if record.uses]
    return removal_order(cfg, used)[: max(0, len(used) - cfg.keep)] if cfg.keep else []


def groups_to_carry(cfg: SelectionConfig, left: Iterable[GroupRecord], slots: int) -> list[GroupRecord]:
    """Groups to take over of those that the stage before left: those that would be removed last."""
    records = removal_order(cfg, list(left))
    return records[max(0, len(records) - min(cfg.carry, slots)) :]


def groups_to_evict(cfg: SelectionConfig, ready: Iterable[GroupRecord], num: int) -> list[GroupRecord]:
    """Used groups to remove so that a batch of `num` can include its required new groups, first to be removed first."""
    records = list(ready)
    missing = num_new_needed(cfg, num) - sum(not record.uses for record in records)
    return removal_order(cfg, [record for record in records if record.uses])[: max(0, missing)]


def removal_order(cfg: SelectionConfig, records: list[GroupRecord]) -> list[GroupRecord]:
    """The groups, first to be removed first; ties are broken by the order of the queue."""
    if cfg.remove == "stalest":
        return sorted(records, key=lambda record: (record.oldest, *queue_order(record)))
    if cfg.remove == "most_used":
        return sorted(records, key=lambda record: (-record.uses, *queue_order(record)))
    return sorted(records, key=queue_order)


def queue_order(record: GroupRecord) -> tuple[int, int]:
    """Sort key: the order in which groups became ready."""
    return record.order, record.group_id


def load_selection(stage: StageConfig, seed: int) -> StageSelection:
    """The selection that `selection` and `selection_options` name. Raises ConfigError for an unknown name or option."""
    module = SELECTIONS.find(stage.selection)
    if not issubclass(module.Config, SelectionConfig):
        raise ConfigError(
            f"selection {stage.selection!r}: its Config must be a SelectionConfig of replay.selection.base"
        )
    cfg = SELECTIONS.decode_options(stage.selection, module, stage.selection_options)
    return StageSelection(cast(SelectionModule, module), cfg, seed)
