"""What a worker's message does. Pure.

    Hello              the worker comes, or comes back on a new connection        arrive
    Ping               what it holds and serves, against what the hub gave it     pinged
    Done, Failed       the answer to a lease                                      done, failed
    Loaded, Rejected   a sampler serves new weights, or refuses them              loaded, rejected
    Pull, Invite, Abandon   for another worker                                    relay
    Bye                it leaves                                                  gone

A worker is one name of its role; each start of it has a higher number (incarnation) and fences off the older ones. A
start by hand, which no supervisor numbers, is refused while another one is at work. A reconnect of the same start keeps
the leases that both sides still know.

Any message may be lost, come twice, late or out of order, so nothing rests on one message. Every Ping and Hello says
the whole state of its worker, and the hub repairs the difference:

    leased, not named    the Work, or its Failed, was lost: the work goes to the front of its queue, charged to nobody
    named, not leased    the Ack or the Revoke was lost: it is sent again
    another version      the Loaded or the NewWeights was lost: the version is believed, or offered again
    not draining         the Drain was lost: it is sent again

A result is bound to its lease, and a lease to one start of one worker: a verifier cannot judge a group that it was not
given, and no worker can answer for another one. A Done is acknowledged once what it holds is stored (or was stored
before, or its group has ended without it). A Done without its result, with a result that cannot be used, or for a
lease that its sender was never given is refused: it is counted, and a Revoke tells the worker to forget it. A report
that came before that of the step before it gets no answer and comes again.

A handler yields what happened to each piece of work, and goes on after `turn.settle` has settled it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

from rlsp_async.contents import is_worker_name, printable
from rlsp_async.messages import (
    PROTOCOL,
    Abandon,
    Ack,
    Bye,
    Done,
    Drain,
    Failed,
    FromWorker,
    Hello,
    Invite,
    Loaded,
    Ping,
    Pong,
    Pull,
    Refuse,
    Rejected,
    Revoke,
    Role,
    Welcome,
)
from rlsp_async.replay import relay, sample, train, verify
from rlsp_async.replay.health import status
from rlsp_async.replay.metrics import lease_span, span
from rlsp_async.replay.state import HubState, LossKind
from rlsp_async.replay.turn import Accepted, Blamed, Early, Late, Lost, Outcome, Settlement, Turn
from rlsp_async.replay.workers import KIND_OF, Assignment, Kind, Lease, Worker, newest_key

ROLES: tuple[Role, ...] = get_args(Role)
YOUNG_HEARTBEATS = 3.0
"""A lease that is younger may still be on its way."""
MISSES = 2
"""Number of Pings in a row that must not name an older lease before it counts as lost."""
OFFER_HEARTBEATS = 3.0
"""Heartbeats after which weights are offered again."""


def receive(turn: Turn, peer: bytes, message: FromWorker) -> Iterator[Settlement]:
    """A worker said something over the connection `peer`."""
    table = turn.state.table
    if isinstance(message, Hello):
        yield from arrive(turn, peer, message)
        return
    if peer in table.fenced:
        _heard_fenced(turn, peer, message)
        return
    worker = table.peers.get(peer)
    if worker is None:
        turn.send(peer, Pong(known=False))  # it must say hello (again) before it is heard
        return
    worker.heard(turn.now)
    match message:
        case Ping():
            yield from pinged(turn, worker, message)
        case Done():
            yield from done(turn, worker, message)
        case Failed():
            yield from failed(turn, worker, message)
        case Loaded():
            loaded(turn, worker, message)
        case Rejected():
            rejected(turn, worker, message)
        case Pull() | Invite() | Abandon():
            relay.relay(turn, worker, message)
        case Bye():
            yield from gone(turn, worker, f"said goodbye {message.reason}".strip(), "returned")


# --- workers come and go ---------------------------------------------------------------------------------------------


def arrive(turn: Turn, peer: bytes, hello: Hello) -> Iterator[Settlement]:
    """A worker came, or came back; it is refused, or welcomed with what it must know."""
    table = turn.state.table
    refusal = _refusal(turn.state, hello)
    if refusal:
        turn.send(peer, Refuse(reason=refusal))
        return
    outdated = _outdated(turn.state, hello)
    if outdated:
        _fence(turn, peer, hello.worker, hello.incarnation, outdated)
        return
    taken = _taken(turn.state, hello)
    if taken:
        replay = turn.state.cfg.replay
        retry_s = replay.timeout_s + YOUNG_HEARTBEATS * replay.heartbeat_s
        turn.send(peer, Refuse(reason=taken, fenced=True, retry_s=retry_s))
        return
    if hello.seq > 0 and (hello.incarnation, hello.seq) <= table.newest.get(newest_key(hello), (-1, 0)):
        return  # it comes late, or twice; its worker may have left since
    old = table.named(hello)
    for replaced in _replaced_by(turn.state, hello):
        _fence(turn, replaced.peer, replaced.name, replaced.incarnation, f"a newer {hello.worker} has taken over")
        yield from gone(turn, replaced, "was replaced by a newer start")
        old = None
    is_same_connection = old is not None and old.peer == peer
    worker = table.join(hello, peer, turn.now)
    if old is None:
        device = f" on {hello.info['device']}" if "device" in hello.info else ""
        turn.event("joined", worker.name, hello.incarnation, f"{hello.role}{device}")
    for lease in _forgotten(turn, worker, hello, is_same_connection):
        table.release(lease.lease)
        yield lease.assignment, Lost("returned", "was forgotten in a reconnect")
    _adopt(turn, worker, hello)
    _welcome(turn, worker, hello)


def _outdated(state: HubState, hello: Hello) -> str:
    newest, _ = state.table.newest.get(newest_key(hello), (hello.incarnation, 0))
    if newest > hello.incarnation and not hello.yields:
        return f"a newer {hello.worker} is at work"
    if hello.role == "learner" and hello.incarnation < state.counters[train.LEARNER]:
        return "a newer start of the learner has trained since"
    return ""


def _taken(state: HubState, hello: Hello) -> str:
    """Why a start must wait for another one to leave; empty when it need not. A start by hand always waits; one that
    its supervisor numbers waits only for a learner of another name that is numbered, too."""
    old = state.table.named(hello)
    if hello.yields and old is not None and not old.is_start_of(hello):
        return f"{old.name} is at work already: give this {hello.role} another name (--worker NAME)"
    learner = state.table.learner()
    is_other = hello.role == "learner" and learner is not None and learner.name != hello.worker
    if is_other and learner is not None and (hello.yields or not learner.yields):
        return f"{learner.name} is the learner of this run"
    return ""


def _replaced_by(state: HubState, hello: Hello) -> list[Worker]:
    """The older start of a worker that comes, and the learner by hand when the run's own comes."""
    learner = state.table.learner() if hello.role == "learner" else None
    known = {worker.id: worker for worker in (state.table.named(hello), learner) if worker is not None}
    return [worker for worker in known.values() if not worker.is_start_of(hello)]


def _refusal(state: HubState, hello: Hello) -> str:
    if not is_worker_name(hello.worker):
        return "the name of a worker has 1 to 128 letters, digits, '-', '_' and '.', like sampler-9"
    for role in ROLES:
        if role != hello.role and hello.worker.startswith(f"{role}-"):
            return f"the name {hello.worker!r} is that of another role, {role}: name this one like {hello.role}-9"
    if hello.run != state.cfg.name:
        return f"this hub serves run {state.cfg.name!r}, not {printable(hello.run, 128)!r}"
    if hello.proto != PROTOCOL:
        return f"this hub speaks protocol {PROTOCOL}, {hello.worker} speaks {hello.proto}: install the same version"
    if hello.role != "observer" and not hello.yields and 0 < state.num_starts < hello.incarnation:
        return f"no start of this run has number {hello.incarnation}: the newest one has {state.num_starts}"
    if hello.role != "observer" and hello.credit < 1:
        return f"{hello.worker} offers a credit of {hello.credit}; it must be at least 1"
    return ""


def _fence(turn: Turn, peer: bytes, worker: str, incarnation: int, why: str) -> None:
    """The connection of an older start of a worker is refused, and nothing that it says is kept."""
    turn.state.table.fence(peer, why)
    turn.send(peer, Refuse(reason=why, fenced=True))
    turn.event("fenced", worker, incarnation, why)


def _heard_fenced(turn: Turn, peer: bytes, message: FromWorker) -> None:
    """Whatever comes over the connection of an older start is answered by Refuse."""
    why = turn.state.table.fenced[peer]
    turn.send(peer, Refuse(reason=why, fenced=True))
    if not isinstance(message, Ping):
        turn.event("fenced", peer.decode(errors="replace"), 0, f"{type(message).__name__}: {why}")


def _forgotten(turn: Turn, worker: Worker, hello: Hello, is_same_connection: bool) -> list[Lease]:
    """Leases whose Work never arrived, or that the worker has forgotten. On the same connection a young lease may still
    be on its way; on a new one it is not, and the Welcome says that it is void."""
    young_s = _young_s(turn.state) if is_same_connection else 0.0
    return [
        lease
        for number, lease in worker.leases.items()
        if number not in hello.leases and turn.now - lease.since_s >= young_s
    ]


def _young_s(state: HubState) -> float:
    return YOUNG_HEARTBEATS * state.cfg.replay.heartbeat_s


def _adopt(turn: Turn, worker: Worker, hello: Hello) -> None:
    """After a restart of the hub, leases that a worker still holds are taken over under their old numbers when their
    work is still to be done, so that nothing is sampled, verified or trained twice."""
    if worker.role == "observer":
        return
    state, table, kind = turn.state, turn.state.table, KIND_OF[worker.role]
    for number, key in sorted(hello.holding.items()):
        if worker.free > 0 and table.may_adopt(worker, number, key) and _is_open(state, kind, key):
            table.lease(worker, key, turn.now, number)
            state.queues.claim(key)


def _is_open(state: HubState, kind: Kind, key: int) -> bool:
    """Whether a piece of work is still to be done."""
    if kind == "train":
        return state.step < key <= state.training.last_manifest
    return state.queues.of(kind).is_open(key, state.ledger)


def _welcome(turn: Turn, worker: Worker, hello: Hello) -> None:
    state = turn.state
    turn.send(
        worker.peer,
        Welcome(
            run=state.cfg.name,
            incarnation=state.incarnation,
            heartbeat_s=state.cfg.replay.heartbeat_s,
            timeout_s=state.cfg.replay.timeout_s,
            weights=state.training.weights,
            leases=sorted(worker.leases),
            seq=hello.seq,
        ),
    )
    worker.offered(turn.now)
    if worker.role == "sampler" and state.training.weights is None:
        worker.serves(0)  # the initial model
    if worker.role == "learner":
        train.learner_came(turn, hello)
    if worker.role == "observer":
        turn.send(worker.peer, status(state, turn.now))
    elif state.ending.has_begun:
        _send_drain(turn, worker)


def _send_drain(turn: Turn, worker: Worker) -> None:
    turn.send(worker.peer, Drain(reason=turn.state.ending.message or "the run is complete"))


def gone(turn: Turn, worker: Worker, why: str, loss: LossKind = "died") -> Iterator[Settlement]:
    """A worker left, was silent for too long or was replaced: its leases are given to others."""
    turn.event("gone", worker.name, worker.incarnation, why)
    relay.left(turn, worker)
    for lease in turn.state.table.leave(worker):
        yield lease.assignment, Lost(loss, why, worker.incarnation)


# --- pings -----------------------------------------------------------------------------------------------------------


def pinged(turn: Turn, worker: Worker, ping: Ping) -> Iterator[Settlement]:
    """A heartbeat. One that comes late says nothing that is still true; one without `seq` says nothing of leases."""
    if ping.seq and ping.seq <= worker.ping_seq:
        return
    worker.pinged(ping)
    if not ping.seq:
        return
    yield from _compare_leases(turn, worker, set(ping.leases))
    if worker.role == "sampler":
        _compare_version(turn, worker, ping)
    if turn.state.ending.has_begun and ping.state != "draining" and worker.role != "observer":
        _send_drain(turn, worker)


def _compare_leases(turn: Turn, worker: Worker, named: set[int]) -> Iterator[Settlement]:
    table, young_s = turn.state.table, _young_s(turn.state)
    for lease in list(worker.leases.values()):
        is_missed = lease.lease not in named and turn.now - lease.since_s > young_s
        if lease.pinged(is_missed) >= MISSES:
            table.release(lease.lease)
            yield lease.assignment, Lost("returned", "never got it")
    for number in sorted(named - worker.leases.keys()):
        past = table.past(worker, number)
        turn.send(worker.peer, Revoke(lease=number, reason="it is over") if past is None else _answer(past))


def _compare_version(turn: Turn, worker: Worker, ping: Ping) -> None:
    cfg, weights = turn.state.cfg.replay, turn.state.training.weights
    if weights is None:
        return  # it serves the initial model
    worker.serves(ping.version)
    is_due = turn.now - worker.offered_s > OFFER_HEARTBEATS * cfg.heartbeat_s
    is_newest = (ping.version, ping.made_by) == (weights.version, weights.incarnation)
    if not is_newest and ping.state != "loading" and is_due and worker.rejections <= cfg.retries:
        turn.offer(worker)


# --- answers to leases -----------------------------------------------------------------------------------------------


def done(turn: Turn, worker: Worker, message: Done) -> Iterator[Settlement]:
    """The result of a lease came: for the first time, again, or late. It is acknowledged when it is stored."""
    table = turn.state.table
    lease, past = worker.leases.get(message.lease), table.past(worker, message.lease)
    if past is not None and past.answer:
        _answer_again(turn, worker, message, past)
        return
    kind, key = KIND_OF[worker.role], _key_of(worker, message)
    is_own = lease is not None and lease.key == key and kind != "train"
    wrong = "" if is_own else _why_not(turn, worker, message, lease or past, key)
    if wrong and lease is None:
        turn.refuse(worker, message.lease, wrong)
        return
    if lease is not None and kind != "train":
        table.release(lease.lease)
    outcome: Outcome | None = None
    if not wrong:
        outcome = _take(turn, message, is_leased=lease is not None)
        if isinstance(outcome, Early):
            return
    if lease is not None:
        if kind == "train":
            table.release(lease.lease)
        turn.write(lease_span(lease, turn.now))
    if outcome is not None and key is not None and kind != "train":
        yield Assignment(worker.name, kind, key), outcome
    ended = lease or past
    if not wrong and key is not None and _is_stored(turn.state, kind, key):
        if kind != "train" and isinstance(outcome, Accepted):
            turn.acknowledged(kind)
        if ended is not None:
            ended.answered("acknowledged")
        turn.send(worker.peer, Ack(lease=message.lease))
        return
    if lease is not None:
        yield from _check_answered(turn, lease)
    if ended is not None:
        ended.answered("refused")
    why = outcome.why if isinstance(outcome, Blamed) else wrong or "its lease was taken back"
    turn.refuse(worker, message.lease, why)


def _take(turn: Turn, message: Done, is_leased: bool) -> Outcome:
    """Takes in the one result of a Done."""
    if message.steps:
        return train.accept(turn, message.steps[0])
    if message.groups:
        return sample.accept(turn, message.groups[0])
    # Verdicts do not say what they are about: only those of a lease are taken.
    return verify.accept(turn, message.verdicts[0]) if is_leased else Late()


def _answer_again(turn: Turn, worker: Worker, message: Done, lease: Lease) -> None:
    """A result came again after it was answered: its answer was lost."""
    if message.groups or message.verdicts or message.steps:
        turn.state.count_duplicate()
    turn.send(worker.peer, _answer(lease))


def _answer(lease: Lease) -> Ack | Revoke:
    """The answer to the result of a lease that has ended."""
    if lease.answer == "acknowledged":
        return Ack(lease=lease.lease)
    return Revoke(lease=lease.lease, reason="it is over", refused=lease.answer == "refused")


def _key_of(worker: Worker, message: Done) -> int | None:
    """The group id or step of the result that a worker of this role brings; None when it brings none."""
    if worker.role == "sampler":
        return message.groups[0].group_id if message.groups else None
    if worker.role == "verifier":
        return message.verdicts[0].group_id if message.verdicts else None
    return message.steps[0].step if message.steps else None


def _why_not(turn: Turn, worker: Worker, message: Done, lease: Lease | None, key: int | None) -> str:
    """Why a Done cannot be looked at; empty when it can. `lease`: what the worker holds, or held, by that number."""
    state = turn.state
    if lease is None and not state.table.may_answer(worker, message.lease):
        return f"{worker.name} was never given lease {message.lease}"
    if key is None:
        return f"{worker.name} answered without the result"
    if lease is not None and lease.key != key:
        return f"{worker.name} answered for {key}, its lease was for {lease.key}"
    if worker.role == "learner":
        is_known = key <= state.step or key in state.training.manifests
        return "" if is_known and key > 0 else f"step {key} was never sent to {worker.name}"
    return "" if 0 < key <= state.last_group_id else f"group {key} was never issued"


def _is_stored(state: HubState, kind: Kind, key: int) -> bool:
    """Whether a result of this kind is stored for a group or a step, or the group has ended without it."""
    if kind == "train":
        return key <= state.step
    record = state.ledger.records.get(key)
    if record is None:
        return True
    return record.state != "issued" and (kind == "sample" or record.state != "sampled")


def _release(turn: Turn, worker: Worker, number: int) -> Lease | None:
    """Ends a lease of this worker; None when the worker has no such lease any more."""
    return turn.state.table.release(number) if number in worker.leases else None


def _check_answered(turn: Turn, lease: Lease) -> Iterator[Settlement]:
    """A Done that did not hold what its lease was for leaves the work undone."""
    state, work = turn.state, lease.assignment
    if work.kind == "train":
        if work.key > state.step and state.ending.kind != "failed":
            turn.requeue(work)
        return
    post = state.queues.of(work.kind)
    if not post.is_open(work.key, state.ledger):
        return
    if work.key not in post.queue and (work.kind, work.key) not in state.table.holders:
        yield work, Blamed("faults", f"{work.worker} answered without the result")


def failed(turn: Turn, worker: Worker, message: Failed) -> Iterator[Settlement]:
    """A lease ended without a result."""
    lease = _release(turn, worker, message.lease)
    if lease is None:
        return
    if message.kind == "returned":
        worker.is_in_state("draining")  # no work until its next Ping: it has just said that it takes none
    if lease.kind == "train":
        train.step_failed(turn, worker, lease, message)
    elif message.kind == "data":
        yield lease.assignment, Blamed("faults", f"{lease.worker}: {message.error}")
    else:
        loss: LossKind = "returned" if message.kind == "returned" else "failed"
        yield lease.assignment, Lost(loss, message.error)


def take_back(turn: Turn, lease: Lease) -> Iterator[Settlement]:
    """Ends a lease whose worker is connected but shows no sign of it."""
    table = turn.state.table
    if table.release(lease.lease) is None:
        return
    holder = table.holder(lease)
    if holder is not None:
        turn.send(holder.peer, Revoke(lease=lease.lease, reason="the lease was taken back"))
    yield lease.assignment, Lost("failed", "its lease ran out")


# --- weights ---------------------------------------------------------------------------------------------------------


def loaded(turn: Turn, worker: Worker, message: Loaded) -> None:
    """A sampler serves new weights."""
    if message.version < worker.version:
        return  # a newer Loaded came before it
    is_new = message.version != worker.version
    worker.loaded(message.version)
    start_s = turn.now - message.seconds
    turn.write(span(start_s, turn.now, worker.name, "load", f"version {message.version}"))
    if is_new:  # the same Loaded again and again is no progress
        turn.moved(f"{worker.name} loaded version {message.version}")


def rejected(turn: Turn, worker: Worker, message: Rejected) -> None:
    """A sampler refuses weights: they are offered again, and the run fails when no sampler takes any."""
    state, retries = turn.state, turn.state.cfg.replay.retries
    worker.serves(-1)
    state.ending.note(f"{worker.name} refuses version {message.version}: {message.reason}")
    if state.training.weights is None or message.version != state.training.weights.version:
        return  # it was not offered, or is not the newest any more
    if train.may_republish(state):
        return  # files in memory are gone after a reboot; the learner publishes them again, and that is announced
    if worker.rejected() <= retries:
        turn.offer(worker)
    elif all(other.rejections > retries for other in state.table.with_role("sampler")):
        turn.fail_run(f"no sampler serves any version: {state.ending.last_error}")
