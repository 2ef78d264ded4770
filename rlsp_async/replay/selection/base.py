"""What a choice is: a module that offers `Config` (a `ChoiceConfig`) and `choose(cfg, ready, step, num, seed)`.

    stages.rlsp.selection = "prioritised"
    stages.rlsp.selection_options = { decay = 0.7, min_new = 0.5 }

`ready` are records that are fresh enough, at least `num` of them, in no order that means anything; the answer is `num`
of them in training order, each with its propensity. A choice is a pure function of its arguments: a hub that is
restarted finds the same groups ready and chooses the same. Lag and uses are checked outside, before and after.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple, Protocol, cast

from rlsp_async.config import Section, StageConfig
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
    """A group of the batch. `propensity`: probability with which it was drawn first, relative to uniform; 1 for a
    choice that draws nothing at random."""

    record: GroupRecord
    propensity: float = 1.0


class SelectionConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options that every choice has. All but min_ready matter with max_uses above 1 only."""

    min_ready: int = 0
    """A batch waits until so many groups are ready, or all that the stage still needs; 0: the batch itself is enough.
    With (target_lag + 1) * groups_per_step every group is trained at a lag of exactly target_lag, after the start."""
    min_new: float = 0.0
    """Rate of reuse: at least this share of a batch has never been trained before. The batch waits for them."""
    keep: int = 0
    """At most so many groups wait for a further use; 0: as many as there are slots."""
    carry: int = 0
    """At most so many groups that the stage before left ready for a further use are taken over; 0: none."""
    remove: Literal["oldest", "stalest", "most_used"] = "stalest"
    """Who goes first when one must: longest in the queue, tokens of the oldest version, or trained most often."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.min_new <= 1.0 or min(self.keep, self.carry, self.min_ready) < 0:
            raise ValueError("min_new must lie in 0..1, keep, carry and min_ready be at least 0")


class SelectionModule(Protocol):
    """A module of this shape."""

    Config: type[SelectionConfig]

    def choose(self, cfg: Any, ready: list[GroupRecord], step: int, num: int, seed: int) -> list[SelectedGroup]:
        """`num` of the ready groups, in training order."""


class StageSelection:
    """The choice of one stage with its options."""

    def __init__(self, choice: SelectionModule, cfg: SelectionConfig, seed: int) -> None:
        self.cfg = cfg
        self._choice, self._seed = choice, seed

    def batch(
        self, fresh: list[GroupRecord], step: int, num: int, num_steps_left: int = 1
    ) -> list[SelectedGroup] | None:
        """The batch of `step`; None: there are not enough groups, or not enough new ones. `num_steps_left`: of the
        stage, this one included."""
        new = [record for record in fresh if not record.uses]
        quota = num_new_needed(self.cfg, num)
        if len(fresh) < num_ready_needed(self.cfg, num, num_steps_left) or len(new) < quota:
            return None
        if not quota:
            return self._choice.choose(self.cfg, fresh, step, num, self._seed)
        first = self._choice.choose(self.cfg, new, step, quota, self._seed) if quota < num else []
        taken = {chosen.record.group_id for chosen in first}
        rest = [record for record in (fresh if first else new) if record.group_id not in taken]
        return first + self._choice.choose(self.cfg, rest, step, num - len(first), self._seed)


def num_ready_needed(cfg: SelectionConfig, num: int, num_steps_left: int) -> int:
    """Rate: groups that must be ready before a batch of `num` is taken. Towards the end of the stage no more come than
    its steps need, so no more are waited for."""
    return max(num, min(cfg.min_ready, num * num_steps_left))


def num_new_needed(cfg: SelectionConfig, num: int) -> int:
    """Groups of a batch that must never have been trained. Example: min_new .5 of 5 -> 3."""
    return math.ceil(cfg.min_new * num)


def groups_above_keep(cfg: SelectionConfig, ready: Iterable[GroupRecord]) -> list[GroupRecord]:
    """Used groups above `keep`, in the order in which they go."""
    used = [record for record in ready if record.uses]
    return removal_order(cfg, used)[: max(0, len(used) - cfg.keep)] if cfg.keep else []


def groups_to_carry(cfg: SelectionConfig, left: Iterable[GroupRecord], slots: int) -> list[GroupRecord]:
    """Of the groups that the stage before left, those that this one takes over: the last to go."""
    records = removal_order(cfg, list(left))
    return records[max(0, len(records) - min(cfg.carry, slots)) :]


def groups_to_evict(cfg: SelectionConfig, ready: Iterable[GroupRecord], num: int) -> list[GroupRecord]:
    """Used groups whose slots the new ones of a batch of `num` need, in the order in which they go."""
    records = list(ready)
    missing = num_new_needed(cfg, num) - sum(not record.uses for record in records)
    return removal_order(cfg, [record for record in records if record.uses])[: max(0, missing)]


def removal_order(cfg: SelectionConfig, records: list[GroupRecord]) -> list[GroupRecord]:
    """Who goes first stands first; ties by age in the queue."""
    if cfg.remove == "stalest":
        return sorted(records, key=lambda record: (record.oldest, *queue_order(record)))
    if cfg.remove == "most_used":
        return sorted(records, key=lambda record: (-record.uses, *queue_order(record)))
    return sorted(records, key=queue_order)


def queue_order(record: GroupRecord) -> tuple[int, int]:
    """Sorts by the order in which groups became ready."""
    return record.order, record.group_id


def load_selection(stage: StageConfig, seed: int) -> StageSelection:
    """What `selection` and `selection_options` name. Raises ConfigError for an unknown name or option."""
    module = SELECTIONS.find(stage.selection)
    if not issubclass(module.Config, SelectionConfig):
        raise ConfigError(
            f"selection {stage.selection!r}: its Config must be a SelectionConfig of replay.selection.base"
        )
    cfg = SELECTIONS.decode_options(stage.selection, module, stage.selection_options)
    return StageSelection(cast(SelectionModule, module), cfg, seed)
