"""One event of the hub: what follows from it, and the one place where the outcome of work is settled. Pure.

    turn = Turn(state, now)
    settle(turn, handler)    a handler calls the verbs of the turn, and yields an outcome for each piece of work
    turn.commit()            the effects, for the shell to carry out

A handler of a result or of a lost lease returns what happened:

    Accepted    the result was taken in
    Late        nobody waits for this result any more
    Early       the report of a step came before that of the step before it; it must come again
    Lost        the lease ended without a result
    Blamed      the result cannot be used, or the work cannot be done; it is charged to a retry budget

A handler yields (work, outcome) pairs, and `settle` alone decides what follows from each, before the handler goes on.
The retry budgets of a group are `replay.retries` failures of workers ("lost") and as many failures of its own
("faults"); and a group that three workers held when they died is quarantined ("deaths"). A lease that was lost on the
way or given back is charged to nobody. Above a budget the group is dropped with its reason and never becomes a reward;
above `replay.failures_per_100` such groups the run fails.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from rlsp_async.messages import Drain, FromHub, NewWeights, Revoke
from rlsp_async.replay.metrics import MetricRow
from rlsp_async.replay.records import FAILURES, Event, EventKind, Reason, Record
from rlsp_async.replay.state import HubState, LossKind
from rlsp_async.replay.workers import Assignment, Worker

FIRST_OUTCOMES = 50
"""Number of outcomes from which on the share of failed groups is judged."""
REFUSALS_RECORDED = 20
"""Refused results of one start of a worker that are recorded; further ones are only counted."""
POISON_DEATHS = 3
"""A group held by this many distinct workers when they died is quarantined, as in dask's `KilledWorker`."""


@dataclass(slots=True)
class Effects:
    """What the shell does next, in this order: commit `records`, send `sends`, write `rows`, fetch `wants`."""

    records: list[Record] = field(default_factory=list)
    sends: list[tuple[bytes, FromHub]] = field(default_factory=list)
    """(connection, message)."""
    rows: list[MetricRow] = field(default_factory=list)
    wants: list[int] = field(default_factory=list)
    """Steps whose batches the shell reads from the journal and hands to `Hub.restored`."""

    def extend(self, later: Effects) -> None:
        """Appends the effects of a later event, each kind in order."""
        self.records += later.records
        self.sends += later.sends
        self.rows += later.rows
        self.wants += later.wants


class Turn:
    """One event: the state, the time, and everything that follows from the event. Only a Turn appends to effects."""

    def __init__(self, state: HubState, now: float) -> None:
        self.state, self.now = state, now
        self._effects = Effects()
        self._acknowledged: dict[str, int] = {}

    def commit(self) -> Effects:
        """Everything that followed from the event; the turn is over."""
        for kind, num in self._acknowledged.items():
            self.count(f"acked.{kind}", num)
        self._acknowledged.clear()
        effects, self._effects = self._effects, Effects()
        return effects

    # --- what the shell does -------------------------------------------------------------------------------------

    def record(self, *records: Record) -> None:
        """Commits records, in order, before anything is sent."""
        self._effects.records.extend(records)

    def send(self, peer: bytes, message: FromHub) -> None:
        """Sends a message after the commit."""
        self._effects.sends.append((peer, message))

    def write(self, *rows: MetricRow) -> None:
        """Writes rows of the run's jsonl files after the commit."""
        self._effects.rows.extend(rows)

    def fetch(self, step: int) -> None:
        """Reads the batch of an old step from the journal; the shell hands it to `Hub.restored`."""
        self._effects.wants.append(step)

    # --- small changes -------------------------------------------------------------------------------------------

    def event(self, kind: EventKind, worker: str = "", key: int = 0, detail: str = "") -> None:
        """Records something that happened to the run."""
        self.record(Event(kind=kind, at_s=self.now, worker=worker, key=key, detail=detail))

    def count(self, counter: str, num: int = 1) -> None:
        """Adds to a counter that goes on after a restart."""
        self.record(self.state.counters.increase(counter, num))

    def acknowledged(self, kind: Literal["sample", "verify"]) -> None:
        """A result was stored, and its worker is told so; the audit compares the number with the groups."""
        self._acknowledged[kind] = self._acknowledged.get(kind, 0) + 1

    def moved(self, what: str) -> None:
        """Something moved: the watchdog starts to count again."""
        self.state.pace.moved(what, self.now)

    # --- groups and steps ----------------------------------------------------------------------------------------

    def requeue(self, work: Assignment) -> None:
        """A piece of work has to be done again: it is next in its queue, unless it is not open any more."""
        state = self.state
        if work.kind == "train":
            state.training.requeue(work.key, state.table.leased_steps())
        else:
            state.queues.of(work.kind).requeue(work.key, state.ledger)

    def drop(self, group_id: int, reason: Reason, why: str = "") -> None:
        """Drops a group; a failure counts against the budget of the run."""
        self.record(self.state.ledger.drop(group_id, reason, why))
        self.state.retries.forget(group_id)
        if reason in FAILURES:
            self.state.retries.count(False)
            self._judge_outcomes()

    def revoke(self, kind: Literal["sample", "verify"], group_id: int, reason: str) -> None:
        """Ends the lease of a group, if it has one: its result is not wanted any more."""
        table = self.state.table
        held = table.holders.get((kind, group_id))
        if held is None:
            return
        table.release(held.lease)
        worker = table.holder(held)
        if worker is not None:
            self.send(worker.peer, Revoke(lease=held.lease, reason=reason))

    def refuse(self, worker: Worker, lease: int, why: str) -> None:
        """Refuses the result of a lease: it is counted, and the worker is told to forget it."""
        self.state.count_refusal("results")
        if worker.refused() <= REFUSALS_RECORDED:
            self.event("refused", worker.name, lease, why)
        self.send(worker.peer, Revoke(lease=lease, reason=why, refused=True))

    def _judge_outcomes(self) -> None:
        state = self.state
        outcomes, limit = state.retries.outcomes, state.cfg.replay.failures_per_100
        num_failed = outcomes.count(False)
        if len(outcomes) >= FIRST_OUTCOMES and 100.0 * num_failed > limit * len(outcomes):
            where = state.phase.stage if state.phase else "the end"
            self.fail_run(
                f"stage {where}: {num_failed} of the last {len(outcomes)} groups failed, more than "
                f"replay.failures_per_100 = {limit:g}; the last one: {state.ending.last_error}"
            )

    # --- weights -------------------------------------------------------------------------------------------------

    def offer(self, worker: Worker) -> None:
        """Tells one sampler of the newest weights."""
        if self.state.training.weights is not None:
            worker.offered(self.now)
            self.send(worker.peer, NewWeights(weights=self.state.training.weights))

    def announce(self) -> None:
        """New weights are published: every sampler is told of them."""
        for worker in self.state.table.with_role("sampler"):
            worker.offered(self.now, is_new=True)
            self.offer(worker)

    # --- the end -------------------------------------------------------------------------------------------------

    def fail_run(self, message: str) -> None:
        """The run cannot succeed: all workers are drained and the message is the reason. The first message stays."""
        if self.state.ending.fail(message, self.now):
            self.event("failed", key=self.state.step, detail=message)
            self._drain_workers(message)

    def drain(self, reason: str) -> None:
        """Nothing new is started: workers finish or return what they hold, and leave."""
        self.state.ending.drain(reason, self.now)
        self._drain_workers(reason)

    def _drain_workers(self, reason: str) -> None:
        for worker in self.state.table.workers.values():
            if worker.role != "observer":
                self.send(worker.peer, Drain(reason=reason))


# --- outcomes --------------------------------------------------------------------------------------------------------


class Accepted(NamedTuple):
    """The result was taken in."""


class Late(NamedTuple):
    """Nobody waits for this result any more: the group has gone on without it."""


class Early(NamedTuple):
    """The report of a step came before that of the step before it. It is not acknowledged, so it comes again."""


class Lost(NamedTuple):
    """The lease ended without a result."""

    kind: LossKind
    why: str
    incarnation: int = 0
    """Incarnation of the worker that died, so that a worker which is silent twice counts as one death."""


class Blamed(NamedTuple):
    """The result cannot be used, or the work cannot be done."""

    budget: Literal["lost", "deaths", "faults"]
    why: str


Outcome = Accepted | Late | Early | Lost | Blamed
Settlement = tuple[Assignment, Outcome]
"""A piece of work and what happened to it."""


def settle(turn: Turn, settlements: Iterable[Settlement]) -> None:
    """Decides what follows from each outcome, one after the other. The only caller of the retry budgets."""
    for work, outcome in settlements:
        match outcome:
            case Late():
                turn.state.count_duplicate()
                detail = "its lease was taken back, and the group has gone on without it"
                turn.event("dropped_late", worker=work.worker, key=work.key, detail=detail)
            case Lost():
                _settle_loss(turn, work, outcome)
            case Blamed():
                _charge(turn, work, outcome)


def _settle_loss(turn: Turn, work: Assignment, loss: Lost) -> None:
    """The work goes to the front of its queue, to another worker if possible, unless a budget is used up."""
    retries = turn.state.retries
    detail = f"{work.kind}, {loss.kind}: {loss.why}"
    turn.event("lease_lost", worker=work.worker, key=work.key, detail=detail)
    if work.kind == "train" or (loss.kind == "returned" and retries.tolerates_return(work.key)):
        turn.requeue(work)
        return
    retries.avoid_worker(work.key, work.worker)
    if loss.kind != "died":
        _charge(turn, work, Blamed("lost", f"{work.worker}: {loss.why}"))
    elif retries.is_first_death(work.key, work.worker, loss.incarnation):
        _charge(turn, work, Blamed("deaths", f"{work.worker}: {loss.why}"))
    else:
        turn.requeue(work)


def _charge(turn: Turn, work: Assignment, fault: Blamed) -> None:
    """Charges one budget of a group, then queues the group again, or drops it when a budget is used up."""
    state = turn.state
    assert work.kind != "train", work
    post = state.queues.of(work.kind)
    if not post.is_open(work.key, state.ledger):
        return
    budget, why = fault
    state.ending.note(f"group {work.key} ({state.ledger.records[work.key].stage}): {why}")
    charged = state.ledger.blame(work.key, **{budget: 1})
    record = charged.record
    if max(record.lost, record.faults) <= state.cfg.replay.retries and record.deaths < POISON_DEATHS:
        turn.record(charged)
        turn.requeue(work)
        return
    if budget == "deaths":
        why = f"{record.deaths} workers died with it in their hands, last {why}"
    reason: Reason = post.error if budget == "faults" else "quarantined"
    turn.event("quarantined", key=work.key, detail=f"{reason}: {why}")
    turn.drop(work.key, reason, why)
