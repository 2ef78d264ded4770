"""Workers that come, come back and go. Pure.

A worker is one name; each start of it has a higher incarnation and fences off the older ones, whose words are refused.
Hello may be said, and arrive, several times: within one start the newest counts. Leases that a worker brings from an
earlier hub, or from before it was thought to be gone, are taken up under their old numbers when they still fit.
"""

from __future__ import annotations

from rlsp_async.messages import PROTOCOL, Drain, Hello, Ping, Refuse, Revoke, Welcome
from rlsp_async.replay.crew import KIND_OF, Lease, Worker
from rlsp_async.replay.heads import Event
from rlsp_async.replay.reconcile import reconcile, void_unknown
from rlsp_async.replay.setbacks import give_again, lose_lease, mislay
from rlsp_async.replay.state import Effects, HubState
from rlsp_async.replay.status import status
from rlsp_async.replay.train_work import learner_came


def arrive(state: HubState, out: Effects, peer: bytes, hello: Hello, now: float) -> None:
    """A worker came, or came back; it is refused, or welcomed with what it must know."""
    crew = state.crew
    outdated = _outdated(state, hello)
    if outdated:
        fenced(state, out, peer, hello.worker, hello.incarnation, outdated, now)
        return
    refusal = _refusal(state, hello)
    if refusal:
        out.sends.append((peer, Refuse(reason=refusal)))
        return
    old = crew.workers.get(hello.worker)
    if _is_old_news(state, hello):
        if old is not None and old.peer == peer:
            _welcome(state, out, old, now)
        return
    if old is not None and old.incarnation < hello.incarnation:
        why = f"a newer {hello.worker} has taken over"
        out.sends.append((old.peer, Refuse(reason=why)))
        crew.fence(old.peer, why)
        gone(state, out, old, "was replaced by a newer start", now, died=True)
        old = None
    _join(state, out, peer, hello, old, now)


def _join(state: HubState, out: Effects, peer: bytes, hello: Hello, old: Worker | None, now: float) -> None:
    is_new_connection = old is None or old.peer != peer
    worker = state.crew.join(hello, peer, now)
    if old is None and worker.role != "observer":
        out.records.append(Event(kind="joined", at_s=now, worker=worker.name, key=hello.incarnation))
    if is_new_connection:
        for lease in [lease for number, lease in worker.leases.items() if number not in hello.leases]:
            state.crew.release(lease.lease)  # its Work, or what followed, was lost with the old connection
            mislay(state, out, lease, now)
        _adopt(state, worker, hello, now)
    _welcome(state, out, worker, now)
    if is_new_connection:
        void_unknown(state, out, worker, set(hello.leases))
        if worker.role == "learner":
            learner_came(state, out, hello, now)
    else:
        reconcile(state, out, worker, hello.leases, now)


def _outdated(state: HubState, hello: Hello) -> str:
    incarnation, _ = state.crew.newest.get(hello.worker, (hello.incarnation, 0))
    if incarnation > hello.incarnation:
        return f"a newer start of {hello.worker} is at work"
    if hello.role == "learner" and hello.incarnation < state.cursors.get("learner", -1):
        return "a newer start of the learner has trained since"
    return ""


def fenced(state: HubState, out: Effects, peer: bytes, worker: str, incarnation: int, why: str, now: float) -> None:
    """An older start of a worker says something: it is refused, and nothing of it is kept."""
    out.sends.append((peer, Refuse(reason=why)))
    out.records.append(Event(kind="fenced", at_s=now, worker=worker, key=incarnation, detail=why))
    state.crew.fence(peer, why)


def heard_fenced(state: HubState, out: Effects, peer: bytes, message: object, now: float) -> None:
    """A connection of an older start: whatever it says is answered by Refuse."""
    why = state.crew.fenced[peer]
    out.sends.append((peer, Refuse(reason=why)))
    if not isinstance(message, Ping):
        worker = peer.decode(errors="replace")
        out.records.append(Event(kind="fenced", at_s=now, worker=worker, detail=f"{type(message).__name__}: {why}"))


def _is_old_news(state: HubState, hello: Hello) -> bool:
    """A Hello that was overtaken, or came twice."""
    incarnation, seq = state.crew.newest.get(hello.worker, (-1, 0))
    return 0 < hello.seq <= seq and incarnation == hello.incarnation


def _refusal(state: HubState, hello: Hello) -> str:
    if hello.run != state.cfg.name:
        return f"this hub serves run {state.cfg.name!r}, not {hello.run!r}"
    if hello.proto != PROTOCOL:
        return f"this hub speaks protocol {PROTOCOL}, {hello.worker} speaks {hello.proto}: install the same version"
    if hello.role != "observer" and hello.credit < 1:
        return f"{hello.worker} offers a credit of {hello.credit}; it must be at least 1"
    old = state.crew.workers.get(hello.worker)
    if old is not None and old.role != hello.role:
        return f"the name {hello.worker!r} is taken by a {old.role}"
    learner = state.crew.learner()
    if hello.role == "learner" and learner is not None and learner.name != hello.worker:
        return f"{learner.name} is the learner of this run"
    return ""


def _adopt(state: HubState, worker: Worker, hello: Hello, now: float) -> None:
    """Takes up the leases that it holds, if what they are for is still to be done and in nobody else's hands."""
    kind = KIND_OF.get(worker.role)
    if kind is None:
        return
    crew = state.crew
    for number, key in sorted(hello.holding.items()):
        is_free = number not in crew.leases and number not in crew.acked and (kind, key) not in crew.holders
        if is_free and len(worker.leases) < worker.credit and _is_wanted(state, kind, key):
            crew.adopt(worker, number, key, now)


def _is_wanted(state: HubState, kind: str, key: int) -> bool:
    if kind == "train":
        return key in state.manifests and key > state.step
    head = state.ledger.heads.get(key)
    return head is not None and head.state == ("issued" if kind == "sample" else "sampled")


def _welcome(state: HubState, out: Effects, worker: Worker, now: float) -> None:
    cfg = state.cfg.replay
    out.sends.append((worker.peer, Welcome(
        run=state.cfg.name, incarnation=state.incarnation, heartbeat_s=cfg.heartbeat_s, timeout_s=cfg.timeout_s,
        weights=state.weights, leases=sorted(worker.leases))))
    worker.told_s = now
    if worker.role == "sampler" and state.weights is None:
        worker.version = 0  # it serves the model that the run began with
    if worker.role == "observer":
        out.sends.append((worker.peer, status(state, now)))
    elif state.ending:
        out.sends.append((worker.peer, Drain(reason=state.message or "the run is complete")))


def gone(state: HubState, out: Effects, worker: Worker, why: str, now: float, died: bool = False) -> None:
    """A worker left, was silent for too long or was replaced: its leases are given to others. Only a death is charged
    to the groups that it held."""
    if worker.role != "observer":
        out.records.append(Event(kind="gone", at_s=now, worker=worker.name, key=worker.incarnation, detail=why))
    for lease in state.crew.leave(worker):
        if died:
            lose_lease(state, out, lease, why, now, died=worker.incarnation)
        else:
            give_again(state, lease)


def take_back(state: HubState, out: Effects, lease: Lease, now: float) -> None:
    """Ends a lease whose worker is here but shows no sign of it."""
    if state.crew.release(lease.lease) is None:
        return
    worker = state.crew.workers[lease.worker]
    out.sends.append((worker.peer, Revoke(lease=lease.lease, reason="the lease was taken back")))
    lose_lease(state, out, lease, "its lease ran out", now)
