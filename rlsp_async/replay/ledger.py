"""The ledger: where every group is, and which ready groups may be trained. Pure.

The ledger keeps the records and bodies of live groups, and sums over the dead. It keeps two laws at every instant. The
slot law, for training groups:

    issued == trained + dropped + alive        alive <= (target_lag + 1) * groups_per_step * oversample

and the same in response tokens, for all groups (evaluation too), the token account:

    generated == trained + stale + truncated + aborted + quarantined + evaluated + no_signal + waiting + in_flight

    generated    response tokens that reached the hub, demonstrations included
    trained      tokens of groups that were trained at least once and are finished
    stale        tokens of groups that were dropped as too old
    truncated    tokens of groups that were dropped because they were cut off (no selection does so yet)
    aborted      tokens of rollouts that a worker cut off, and of groups left over when their stage ended
    quarantined  tokens of groups that were dropped because sampling or verifying them failed
    evaluated    tokens of evaluation groups that were counted
    no_signal    tokens of groups that were dropped because all their rollouts earned the same reward
    waiting      tokens of groups that are sampled or ready
    in_flight    tokens of groups in a batch that is not reported yet

The age of a group in the batch of step s is its lag, which includes the time it waited in queues:

    lag = (s - 1) - version of the group's oldest token        (0 for a demonstration)

Which of the groups that may be trained make the next batch is decided by the stage's selection (`selection/`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec

from rlsp_async.columns import ints
from rlsp_async.contents import check_columns
from rlsp_async.errors import DataError
from rlsp_async.messages import RolloutGroup, Verdict
from rlsp_async.observations import has_observations, joined_versions, num_sampled
from rlsp_async.replay.records import DEAD, Cursor, GroupRecord, Put, Reason, State, Total

SINKS = ("trained", "stale", "truncated", "aborted", "quarantined", "evaluated", "no_signal", "waiting", "in_flight")

_SINK_OF_STATE: dict[State, str] = {
    "sampled": "waiting",
    "ready": "waiting",
    "training": "in_flight",
    "trained": "trained",
    "evaluated": "evaluated",
}
_SINK_OF_REASON: dict[Reason, str] = {
    "stale": "stale",
    "truncated": "truncated",
    "stage_end": "aborted",
    "no_signal": "no_signal",
}


def sink(state: State, reason: Reason) -> str:
    """The entry of the token account under which a group's tokens are counted.

    Args:
        state: the group's state.
        reason: why it was dropped; empty for a group that was not.

    Returns:
        One of SINKS.
    """
    return _SINK_OF_STATE.get(state) or _SINK_OF_REASON.get(reason, "quarantined")


class Ledger:
    """The state of every group.

    Each transition returns its record, which must be committed before anyone hears of the transition.
    """

    def __init__(self) -> None:
        self.records: dict[int, GroupRecord] = {}
        """Live groups by id."""
        self.bodies: dict[int, RolloutGroup] = {}
        """Tokens of the live groups that have been sampled."""
        self.verdicts: dict[int, list[Verdict]] = {}
        """Verdicts of the live groups that have been verified."""
        self.ready: dict[int, GroupRecord] = {}
        """Training groups that may be selected."""
        self.by_state: Counter[State] = Counter()
        """Number of live training groups in each state."""
        self.pending: Counter[int] = Counter()
        """For each training prompt, the number of its groups that are not verified yet; spawned groups do not count."""
        self.issued = 0
        """Training groups ever issued."""
        self.trained = 0
        """Training groups that were trained and are finished."""
        self.dropped: Counter[Reason] = Counter()
        """Training groups that were dropped, by reason."""
        self.account: Counter[str] = Counter()
        """Response tokens: "generated", and each of SINKS."""
        self._last_order = 0

    @property
    def alive(self) -> int:
        """Slots that are taken: live training groups."""
        return sum(self.by_state.values())

    @property
    def waiting(self) -> int:
        """Live training groups that are in no batch."""
        return self.alive - self.by_state["training"]

    def tokens(self) -> dict[str, int]:
        """The token account: the tokens that were generated, and where they are."""
        return {"generated": self.account["generated"], **{name: self.account[name] for name in SINKS}}

    def counts(self) -> dict[str, int]:
        """The numbers of the slot law."""
        return {"issued": self.issued, "trained": self.trained, "dropped": self.dropped.total(), "alive": self.alive}

    def restore(
        self,
        records: Iterable[GroupRecord],
        totals: Iterable[Total],
        bodies: dict[int, RolloutGroup],
        verdicts: dict[int, list[Verdict]],
    ) -> None:
        """Takes over what a journal kept.

        Args:
            records: live groups.
            totals: sums over the dead groups.
            bodies: tokens of live groups by group id.
            verdicts: verdicts of live groups by group id.
        """
        self.bodies.update(bodies)
        self.verdicts.update(verdicts)
        for record in records:
            self._count(record, +1)
            self.issued += record.purpose == "train"
            self.account["generated"] += record.num_tokens + record.num_wasted_tokens
            self.account["aborted"] += record.num_wasted_tokens
            self.records[record.group_id] = record
            self._last_order = max(self._last_order, record.order)
        for total in totals:
            self._restore_total(total)

    def _restore_total(self, total: Total) -> None:
        self.account["generated"] += total.num_tokens + total.num_wasted_tokens
        self.account["aborted"] += total.num_wasted_tokens
        self.account[sink(total.state, total.reason)] += total.num_tokens
        if total.purpose == "train":
            self.issued += total.num_groups
            self.trained += total.num_groups if total.state == "trained" else 0
            if total.state == "dropped":
                self.dropped[total.reason] += total.num_groups

    # --- transitions ---------------------------------------------------------------------------------------------

    def issue(self, record: GroupRecord) -> Put:
        """Adds a group in state issued; a training group takes a slot."""
        self.records[record.group_id] = record
        self.issued += record.purpose == "train"
        self._count(record, +1)
        return Put(record=record)

    def sampled(self, group: RolloutGroup, now: float, versions: tuple[int, int] | None = None) -> Put:
        """Moves a group from issued to sampled.

        Args:
            group: the rollouts of the issued group `group.group_id`.
            now: seconds of the run.
            versions: oldest and newest version of its tokens, of a group that was checked; None: it is checked here.

        Returns:
            The record to commit, with the body.

        Raises:
            DataError: the rollouts are not a whole group.
        """
        return self._take_in(group, "sampled", now, versions)

    def demonstrated(
        self, record: GroupRecord, group: RolloutGroup, verdicts: list[Verdict], now: float, has_signal: bool = False
    ) -> Put:
        """Adds a demonstration, which starts as ready: nobody samples or verifies it.

        Args:
            record: the new group in state issued.
            group: its rollouts.
            verdicts: the verdicts that an imported group brings; empty for a demonstration of the task.
            now: seconds of the run.
            has_signal: see `GroupRecord.has_signal`.

        Returns:
            The record to commit, with the body.

        Raises:
            DataError: the rollouts are not a whole group.
        """
        self.issue(record)
        taken = self._take_in(group, "ready", now)
        if not verdicts:
            return taken
        self.verdicts[record.group_id] = verdicts
        counted = self._move(
            record.group_id,
            num_verdicts=len(verdicts),
            has_signal=has_signal,
            num_correct=sum(verdict.status == "correct" for verdict in verdicts),
        )
        return Put(record=counted, body=group, verdicts=verdicts)

    def _take_in(self, group: RolloutGroup, state: State, now: float, versions: tuple[int, int] | None = None) -> Put:
        if versions is None:
            check_whole(group)
            versions = versions_of(group)
        oldest, newest = versions
        self.bodies[group.group_id] = group
        num_tokens = count_tokens(group)
        self.account["generated"] += num_tokens
        record = self._move(
            group.group_id,
            state=state,
            num_tokens=num_tokens,
            oldest=oldest,
            newest=newest,
            num_rollouts=len(group.rollouts),
            prompt=None,
            sampled_s=now,
            lost=0,
            deaths=0,
            faults=0,
            **(self._end_of_queue(now) if state == "ready" else {}),
        )
        return Put(record=record, body=group)

    def verified(self, group_id: int, verdicts: list[Verdict], now: float, has_signal: bool = False) -> Put:
        """Moves a group from sampled to ready.

        Args:
            group_id: the group.
            verdicts: one for each of its rollouts, in order.
            now: seconds of the run.
            has_signal: see `GroupRecord.has_signal`.

        Returns:
            The record to commit, with the verdicts.
        """
        self.verdicts[group_id] = verdicts
        num_true = sum(verdict.is_true for verdict in verdicts)
        num_correct = sum(verdict.status == "correct" for verdict in verdicts)
        record = self._move(
            group_id,
            state="ready",
            lost=0,
            deaths=0,
            faults=0,
            num_verdicts=num_true,
            num_correct=num_correct,
            has_signal=has_signal,
            **self._end_of_queue(now),
        )
        return Put(record=record, verdicts=verdicts)

    def take(self, group_id: int, step: int) -> Put:
        """Moves a group from ready to training and charges one use, before the learner sees the batch of `step`."""
        record = self.records[group_id]
        return Put(record=self._move(group_id, state="training", uses=record.uses + 1, step=step))

    def finish(self, group_id: int, next_step: int, max_lag: int, max_uses: int) -> Put:
        """Moves a group from training to trained, or back to the end of the ready queue.

        Args:
            group_id: the group.
            next_step: the next step whose batch will be chosen.
            max_lag: bound of the stage on the lag, in versions.
            max_uses: bound of the stage on the uses.

        Returns:
            The record to commit.
        """
        record = self.records[group_id]
        if returns(record, next_step, max_lag, max_uses):
            return Put(record=self._move(group_id, state="ready", **self._end_of_queue(record.ready_s)))
        return Put(record=self._move(group_id, state="trained"))

    def drop(self, group_id: int, reason: Reason, why: str = "") -> Put:
        """Drops a group from any state.

        A group that was trained before counts as trained instead: its tokens are in the weights.

        Args:
            group_id: the group.
            reason: the kind of reason.
            why: the last failure, in words.

        Returns:
            The record to commit.
        """
        if self.records[group_id].uses:
            return Put(record=self._move(group_id, state="trained"))
        return Put(record=self._move(group_id, state="dropped", reason=reason, why=why, prompt=None))

    def quarantine(self, group_id: int, why: str) -> Put:
        """Takes a group out of the batch that it was charged for and that was not trained: the use is given back.

        A group that was trained before stays trained: its tokens are in the weights.

        Args:
            group_id: the group, in state training.
            why: what is wrong with it, in words.

        Returns:
            The record to commit.
        """
        uses = self.records[group_id].uses - 1
        if uses:
            return Put(record=self._move(group_id, state="trained", uses=uses))
        return Put(record=self._move(group_id, state="dropped", uses=0, reason="quarantined", why=why, prompt=None))

    def spawned(self, group_id: int) -> Put:
        """Counts a child: a group was spawned from one of this group's rollouts."""
        return Put(record=self._move(group_id, num_children=self.records[group_id].num_children + 1))

    def retire(self, group_id: int) -> Put:
        """Moves a used group from ready to trained, so that its slot is free."""
        assert self.records[group_id].uses, group_id
        return Put(record=self._move(group_id, state="trained"))

    def evaluated(self, group_id: int) -> Put:
        """Moves an evaluation group from ready to evaluated."""
        return Put(record=self._move(group_id, state="evaluated"))

    def waste(self, group_id: int, num_tokens: int) -> Put:
        """Accounts the tokens of a discarded attempt as aborted; the group stays issued."""
        record = self.records[group_id]
        self.account["generated"] += num_tokens
        self.account["aborted"] += num_tokens
        return Put(record=self._move(group_id, num_wasted_tokens=record.num_wasted_tokens + num_tokens))

    def blame(self, group_id: int, *, lost: int = 0, deaths: int = 0, faults: int = 0) -> Put:
        """Charges the retry budgets of a group.

        Args:
            group_id: the group.
            lost: leases that ended because a worker or its engine failed.
            deaths: workers that died while they held it.
            faults: leases that failed because of the group itself.

        Returns:
            The record to commit.
        """
        record = self.records[group_id]
        return Put(
            record=self._move(
                group_id, lost=record.lost + lost, deaths=record.deaths + deaths, faults=record.faults + faults
            )
        )

    # --- inside --------------------------------------------------------------------------------------------------

    def _end_of_queue(self, now: float) -> dict[str, Any]:
        self._last_order += 1
        return {"order": self._last_order, "ready_s": now}

    def _move(self, group_id: int, **changes: Any) -> GroupRecord:
        old = self.records[group_id]
        new: GroupRecord = msgspec.structs.replace(old, **changes)
        self._count(old, -1)
        self._count(new, +1)
        if new.state in DEAD:
            self._remove(new)
        else:
            self.records[group_id] = new
        return new

    def _count(self, record: GroupRecord, sign: int) -> None:
        state = record.state
        if state != "issued":
            entry = _SINK_OF_STATE.get(state) or sink(state, record.reason)
            self.account[entry] += sign * record.num_tokens
        if state not in DEAD and record.purpose == "train":
            self.by_state[state] += sign
            if (state == "issued" or state == "sampled") and not record.parent:
                self._count_pending(record.index, sign)
            if state == "ready":
                if sign > 0:
                    self.ready[record.group_id] = record
                else:
                    self.ready.pop(record.group_id, None)

    def _count_pending(self, index: int, sign: int) -> None:
        self.pending[index] += sign
        if not self.pending[index]:
            del self.pending[index]

    def _remove(self, record: GroupRecord) -> None:
        del self.records[record.group_id]
        self.bodies.pop(record.group_id, None)
        self.verdicts.pop(record.group_id, None)
        if record.purpose == "train":
            self.trained += record.state == "trained"
            if record.state == "dropped":
                self.dropped[record.reason] += 1


class Counters(dict[str, int]):
    """Counters that go on after a restart of the hub; a counter that was never set is 0.

    Each change returns the record of it, like a transition of the ledger.
    """

    def __missing__(self, name: str) -> int:
        return 0

    def increase(self, name: str, num: int = 1) -> Cursor:
        """Adds `num` to a counter."""
        return self.set(name, self[name] + num)

    def set(self, name: str, value: int) -> Cursor:
        """Sets a counter."""
        self[name] = value
        return Cursor(name=name, value=value)


# --- what a group is made of -----------------------------------------------------------------------------------------


def count_tokens(group: RolloutGroup) -> int:
    """Number of response tokens of all rollouts of a group, without what an environment said."""
    return sum(num_sampled(rollout) for rollout in group.rollouts)


def check_whole(group: RolloutGroup) -> None:
    """Checks that a group has all its rollouts, each with columns of one length.

    A group is trained whole or not at all.

    Raises:
        DataError: something is missing; the message says what.
    """
    if [rollout.index for rollout in group.rollouts] != list(range(group.sampling.rollouts)):
        raise DataError(f"group {group.group_id} has {len(group.rollouts)} rollouts of {group.sampling.rollouts}")
    for rollout in group.rollouts:
        if rollout.replayed_from:
            raise DataError(f"group {group.group_id}, rollout {rollout.index}: a sampler cannot replay a rollout")
    check_columns(group)


def versions_of(group: RolloutGroup) -> tuple[int, int]:
    """Oldest and newest version of a group's sampled tokens, (-1, -1) for a group without any.

    All columns are joined first, so that a group costs one call of numpy instead of one for each rollout.
    """
    if group.provenance == "demonstration":
        return -1, -1
    if has_observations(group):
        column = joined_versions(group.rollouts)
        return (int(column.min()), int(column.max())) if len(column) else (-1, -1)
    column = ints(b"".join(rollout.versions for rollout in group.rollouts))
    return (int(column.min()), int(column.max())) if len(column) else (-1, -1)


# --- staleness: age, reuse and rate ----------------------------------------------------------------------------------


def lag(record: GroupRecord, step: int) -> int:
    """Versions between the oldest token of a group and the weights from which step `step` starts."""
    return 0 if record.provenance == "demonstration" else step - 1 - record.oldest


def is_stale(record: GroupRecord, step: int, max_lag: int) -> bool:
    """Whether a group is too old for the batch of `step`: its lag is above `max_lag` versions."""
    return lag(record, step) > max_lag


def fresh(ready: Iterable[GroupRecord], step: int, max_lag: int) -> list[GroupRecord]:
    """The ready groups that may be in the batch of `step`: those whose lag is at most `max_lag` versions."""
    return [record for record in ready if not is_stale(record, step, max_lag)]


def returns(record: GroupRecord, step: int, max_lag: int, max_uses: int) -> bool:
    """Whether a group that was just trained becomes ready again, to be trained at `step` or later.

    Args:
        record: the group, its newest use included.
        step: the next step whose batch will be chosen.
        max_lag: bound on the lag, in versions.
        max_uses: bound on the uses.

    Returns:
        True when one more use is within both bounds.
    """
    return record.uses < max_uses and not is_stale(record, step, max_lag)


def num_to_admit(alive: int, capacity: int, waiting: int, needed: int | None) -> int:
    """Number of slots that may be filled now.

    Args:
        alive: slots that are taken.
        capacity: all slots; the slot law is alive <= capacity.
        waiting: live groups that are in no batch yet.
        needed: groups that are still to be trained in this stage; None when it is unknown, because groups are used
            more than once.

    Returns:
        A number of groups, at least 0.
    """
    room = capacity - alive
    return max(0, room if needed is None else min(room, needed - waiting))
