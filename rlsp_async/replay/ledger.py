"""The ledger: where every group is. Pure; it keeps heads and bodies of live groups, and totals of the dead.

The slot law, for training groups, at every instant:

    issued == trained + dropped + alive        alive <= (target_lag + 1) * groups_per_step * oversample

and the same in response tokens, for all groups (evaluation too), the closed account:

    generated == trained + stale + truncated + aborted + quarantined + evaluated + no_signal + waiting + in_flight

    generated    response tokens that reached the hub, demonstrations included
    trained      of groups trained at least once and gone
    stale        of groups dropped as too old
    truncated    of groups dropped because they were cut off (no selection does so yet)
    aborted      of rollouts cut off by a worker, and of groups left over when their stage ended
    quarantined  of groups dropped because sampler or verifier failed on them
    evaluated    of evaluation groups that were counted
    no_signal    of groups dropped because all their rollouts earned the same
    waiting      sampled or ready
    in_flight    in a batch that is not reported yet

Which groups may train, and how many are made: age, reuse and rate, functions over heads.

lag = (s - 1) - version of the group's OLDEST token, for the batch of step s, time in the queue included; 0 for a
demonstration. Which of those that may train do so is the choice of the stage: `choices/`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec

from rlsp_async.columns import ints, num_values
from rlsp_async.errors import DataError
from rlsp_async.messages import RolloutGroup, Verdict
from rlsp_async.replay.records import DEAD, GroupRecord, Put, Reason, State, Total

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
    """The entry of the token account that a group's tokens stand under."""
    return _SINK_OF_STATE.get(state) or _SINK_OF_REASON.get(reason, "quarantined")


class Ledger:
    """Every transition returns the record of it; who calls it writes that down before anyone hears of it."""

    def __init__(self) -> None:
        self.heads: dict[int, GroupRecord] = {}
        self.bodies: dict[int, RolloutGroup] = {}
        self.verdicts: dict[int, list[Verdict]] = {}
        self.ready: dict[int, GroupRecord] = {}
        """Training groups that may be selected."""
        self.by_state: Counter[State] = Counter()
        """Live training groups."""
        self.pending: Counter[int] = Counter()
        """Place of a training prompt -> its groups that are not judged yet, children left out."""
        self.issued = 0
        self.trained = 0
        self.dropped: Counter[Reason] = Counter()
        self.account: Counter[str] = Counter()
        self._order = 0

    @property
    def alive(self) -> int:
        """Slots taken."""
        return sum(self.by_state.values())

    @property
    def waiting(self) -> int:
        """Live training groups that are in no batch."""
        return self.alive - self.by_state["training"]

    def tokens(self) -> dict[str, int]:
        """The closed account: generated, then where it is."""
        return {"generated": self.account["generated"], **{name: self.account[name] for name in SINKS}}

    def counts(self) -> dict[str, int]:
        """The slot law's numbers."""
        return {"issued": self.issued, "trained": self.trained, "dropped": self.dropped.total(), "alive": self.alive}

    def restore(
        self,
        heads: Iterable[GroupRecord],
        totals: Iterable[Total],
        bodies: dict[int, RolloutGroup],
        verdicts: dict[int, list[Verdict]],
    ) -> None:
        """Takes over what a journal kept."""
        self.bodies.update(bodies)
        self.verdicts.update(verdicts)
        for head in heads:
            self._count(head, +1)
            self.issued += head.purpose == "train"
            self.account["generated"] += head.num_tokens + head.num_wasted_tokens
            self.account["aborted"] += head.num_wasted_tokens
            self.heads[head.group_id] = head
            self._order = max(self._order, head.order)
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

    def issue(self, head: GroupRecord) -> Put:
        """A slot is born."""
        self.heads[head.group_id] = head
        self.issued += head.purpose == "train"
        self._count(head, +1)
        return Put(head=head)

    def sampled(self, group: RolloutGroup, now: float) -> Put:
        """issued -> sampled. Raises DataError when the rollouts are not a whole group."""
        return self._take_in(group, "sampled", now)

    def demonstrated(
        self, head: GroupRecord, group: RolloutGroup, verdicts: list[Verdict], now: float, has_signal: bool = False
    ) -> Put:
        """A demonstration is born ready: nobody samples or verifies it. An imported one may bring its verdicts."""
        self.issue(head)
        taken = self._take_in(group, "ready", now)
        if not verdicts:
            return taken
        self.verdicts[head.group_id] = verdicts
        counted = self._move(
            head.group_id,
            num_verdicts=len(verdicts),
            has_signal=has_signal,
            num_correct=sum(verdict.status == "correct" for verdict in verdicts),
        )
        return Put(head=counted, body=group, verdicts=verdicts)

    def _take_in(self, group: RolloutGroup, state: State, now: float) -> Put:
        check_whole(group)
        oldest, newest = versions_of(group)
        self.bodies[group.group_id] = group
        num_tokens = count_tokens(group)
        self.account["generated"] += num_tokens
        head = self._move(
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
            **(self._turn(now) if state == "ready" else {}),
        )
        return Put(head=head, body=group)

    def verified(self, group_id: int, verdicts: list[Verdict], now: float, has_signal: bool = False) -> Put:
        """sampled -> ready."""
        self.verdicts[group_id] = verdicts
        num_true = sum(verdict.is_true for verdict in verdicts)
        num_correct = sum(verdict.status == "correct" for verdict in verdicts)
        head = self._move(
            group_id,
            state="ready",
            lost=0,
            deaths=0,
            faults=0,
            num_verdicts=num_true,
            num_correct=num_correct,
            has_signal=has_signal,
            **self._turn(now),
        )
        return Put(head=head, verdicts=verdicts)

    def take(self, group_id: int, step: int) -> Put:
        """ready -> training: one use is charged, before the learner sees it."""
        head = self.heads[group_id]
        return Put(head=self._move(group_id, state="training", uses=head.uses + 1, step=step))

    def finish(self, group_id: int, next_step: int, max_lag: int, max_uses: int) -> Put:
        """training -> trained, or back to the end of the ready queue."""
        head = self.heads[group_id]
        if returns(head, next_step, max_lag, max_uses):
            return Put(head=self._move(group_id, state="ready", **self._turn(head.ready_s)))
        return Put(head=self._move(group_id, state="trained"))

    def drop(self, group_id: int, reason: Reason, why: str = "") -> Put:
        """Anything -> dropped. A group that was trained before counts as trained: its tokens are in the weights."""
        if self.heads[group_id].uses:
            return Put(head=self._move(group_id, state="trained"))
        return Put(head=self._move(group_id, state="dropped", reason=reason, why=why, prompt=None))

    def spawned(self, group_id: int) -> Put:
        """A child was spawned from one of its rollouts."""
        return Put(head=self._move(group_id, num_children=self.heads[group_id].num_children + 1))

    def retire(self, group_id: int) -> Put:
        """ready -> trained: a group that was used before makes room for others."""
        assert self.heads[group_id].uses, group_id
        return Put(head=self._move(group_id, state="trained"))

    def evaluated(self, group_id: int) -> Put:
        """ready -> evaluated."""
        return Put(head=self._move(group_id, state="evaluated"))

    def waste(self, group_id: int, num_tokens: int) -> Put:
        """An attempt was thrown away: its tokens are accounted as aborted, the group is issued again."""
        head = self.heads[group_id]
        self.account["generated"] += num_tokens
        self.account["aborted"] += num_tokens
        return Put(head=self._move(group_id, num_wasted_tokens=head.num_wasted_tokens + num_tokens))

    def blame(self, group_id: int, *, lost: int = 0, deaths: int = 0, faults: int = 0) -> Put:
        """Charges one of the budgets."""
        head = self.heads[group_id]
        return Put(
            head=self._move(group_id, lost=head.lost + lost, deaths=head.deaths + deaths, faults=head.faults + faults)
        )

    # --- inside --------------------------------------------------------------------------------------------------

    def _turn(self, now: float) -> dict[str, Any]:
        self._order += 1
        return {"order": self._order, "ready_s": now}

    def _move(self, group_id: int, **changes: Any) -> GroupRecord:
        old = self.heads[group_id]
        new: GroupRecord = msgspec.structs.replace(old, **changes)
        self._count(old, -1)
        self._count(new, +1)
        if new.state in DEAD:
            self._bury(new)
        else:
            self.heads[group_id] = new
        return new

    def _count(self, head: GroupRecord, sign: int) -> None:
        if head.state != "issued":
            self.account[sink(head.state, head.reason)] += sign * head.num_tokens
        if head.state not in DEAD and head.purpose == "train":
            self.by_state[head.state] += sign
            if head.state in ("issued", "sampled") and not head.parent:
                self._pend(head.index, sign)
            if head.state == "ready":
                if sign > 0:
                    self.ready[head.group_id] = head
                else:
                    self.ready.pop(head.group_id, None)

    def _pend(self, place: int, sign: int) -> None:
        self.pending[place] += sign
        if not self.pending[place]:
            del self.pending[place]

    def _bury(self, head: GroupRecord) -> None:
        del self.heads[head.group_id]
        self.bodies.pop(head.group_id, None)
        self.verdicts.pop(head.group_id, None)
        if head.purpose == "train":
            self.trained += head.state == "trained"
            if head.state == "dropped":
                self.dropped[head.reason] += 1


def count_tokens(group: RolloutGroup) -> int:
    """Response tokens of all rollouts."""
    return sum(num_values(rollout.token_ids) for rollout in group.rollouts)


def check_whole(group: RolloutGroup) -> None:
    """A group is trained whole or not at all. Raises DataError that says what is missing."""
    if [rollout.index for rollout in group.rollouts] != list(range(group.sampling.rollouts)):
        raise DataError(f"group {group.group_id} has {len(group.rollouts)} rollouts of {group.sampling.rollouts}")
    for rollout in group.rollouts:
        if rollout.replayed_from:
            raise DataError(f"group {group.group_id}, rollout {rollout.index}: a sampler cannot replay a rollout")
        lengths = {len(rollout.token_ids), len(rollout.logprobs), len(rollout.versions)}
        if len(lengths) != 1 or len(rollout.token_ids) % 4:
            raise DataError(f"group {group.group_id}, rollout {rollout.index}: its columns differ in length")


def versions_of(group: RolloutGroup) -> tuple[int, int]:
    """Oldest and newest version of its tokens; -1 without any. All columns at once: one look costs what one rollout's
    would."""
    column = ints(b"".join(rollout.versions for rollout in group.rollouts))
    return (int(column.min()), int(column.max())) if len(column) else (-1, -1)


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
