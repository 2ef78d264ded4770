"""Workers that come, come back and go. Pure.

A worker is one name; each start of it has a higher incarnation and fences off the older one. A reconnect of the same
start keeps the leases that both sides still know.
"""

from __future__ import annotations

from rlsp_async.messages import PROTOCOL, Drain, FromWorker, Hello, Ping, Refuse, Revoke, Welcome
from rlsp_async.replay.reconcile import STRAY_HEARTBEATS, adopt
from rlsp_async.replay.records import Event, EventKind
from rlsp_async.replay.setbacks import Fate, lose_lease
from rlsp_async.replay.state import Effects, HubState
from rlsp_async.replay.status import status
from rlsp_async.replay.train_work import learner_came
from rlsp_async.replay.workers import Lease, Worker


def arrive(state: HubState, out: Effects, peer: bytes, hello: Hello, now: float) -> None:
    """A worker came, or came back; it is refused, or welcomed with what it must know."""
    crew = state.crew
    outdated = _outdated(state, hello)
    if outdated:
        _fence(state, out, peer, hello.worker, hello.incarnation, outdated, now)
        return
    refusal = _refusal(state, hello)
    if refusal:
        out.sends.append((peer, Refuse(reason=refusal)))
        return
    if hello.seq > 0 and (hello.incarnation, hello.seq) <= crew.newest.get(hello.worker, (-1, 0)):
        return  # it comes late, or twice; its worker may have left since
    old = crew.workers.get(hello.worker)
    if old is not None and old.incarnation < hello.incarnation:
        _fence(state, out, old.peer, old.name, old.incarnation, f"a newer {old.name} has taken over", now)
        gone(state, out, old, "was replaced by a newer start", now)
        old = None
    young_s = STRAY_HEARTBEATS * state.cfg.replay.heartbeat_s if old is not None and old.peer == peer else 0.0
    worker = crew.join(hello, peer, now)
    if old is None:
        out.records.append(
            _event(
                "joined",
                worker.name,
                now,
                hello.incarnation,
                f"{hello.role} on {hello.info['device']}" if "device" in hello.info else hello.role,
            )
        )
    for lease in [lease for number, lease in worker.leases.items() if number not in hello.leases]:
        if now - lease.since_s >= young_s:  # its Work never arrived, or was forgotten; the Welcome says that it is void
            crew.release(lease.lease)
            lose_lease(state, out, lease, "was forgotten in a reconnect", now, "returned")
    adopt(state, worker, hello, now)
    _welcome(state, out, worker, hello, now)


def _outdated(state: HubState, hello: Hello) -> str:
    newest, _ = state.crew.newest.get(hello.worker, (hello.incarnation, 0))
    if newest > hello.incarnation:
        return f"a newer {hello.worker} is at work"
    if hello.role == "learner" and hello.incarnation < state.cursors.get("learner", -1):
        return "a newer start of the learner has trained since"
    return ""


def _fence(state: HubState, out: Effects, peer: bytes, worker: str, incarnation: int, why: str, now: float) -> None:
    """An older start of a worker: it is refused, and nothing that it says is kept."""
    state.crew.fence(peer, why)
    out.sends.append((peer, Refuse(reason=why)))
    out.records.append(_event("fenced", worker, now, incarnation, why))


def heard_fenced(state: HubState, out: Effects, peer: bytes, message: FromWorker, now: float) -> None:
    """Whatever comes over the connection of an older start is answered by Refuse."""
    why = state.crew.fenced[peer]
    out.sends.append((peer, Refuse(reason=why)))
    if not isinstance(message, Ping):
        detail = f"{type(message).__name__}: {why}"
        out.records.append(_event("fenced", peer.decode(errors="replace"), now, 0, detail))


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


def _welcome(state: HubState, out: Effects, worker: Worker, hello: Hello, now: float) -> None:
    cfg = state.cfg.replay
    out.sends.append(
        (
            worker.peer,
            Welcome(
                run=state.cfg.name,
                incarnation=state.incarnation,
                heartbeat_s=cfg.heartbeat_s,
                timeout_s=cfg.timeout_s,
                weights=state.weights,
                leases=sorted(worker.leases),
                seq=hello.seq,
            ),
        )
    )
    worker.offered_s = now
    if worker.role == "sampler" and state.weights is None:
        worker.version = 0  # it serves the model that the run began with
    if worker.role == "learner":
        learner_came(state, out, hello, now)
    if worker.role == "observer":
        out.sends.append((worker.peer, status(state, now)))
    elif state.ending:
        out.sends.append((worker.peer, Drain(reason=state.message or "the run is complete")))


def gone(state: HubState, out: Effects, worker: Worker, why: str, now: float, fate: Fate = "died") -> None:
    """A worker left, was silent for too long or was replaced: its leases are given to others."""
    out.records.append(_event("gone", worker.name, now, worker.incarnation, why))
    for lease in state.crew.leave(worker):
        lose_lease(state, out, lease, why, now, fate, worker.incarnation)


def take_back(state: HubState, out: Effects, lease: Lease, now: float) -> None:
    """Ends a lease whose worker is here but shows no sign of it."""
    if state.crew.release(lease.lease) is None:
        return
    worker = state.crew.workers[lease.worker]
    out.sends.append((worker.peer, Revoke(lease=lease.lease, reason="the lease was taken back")))
    lose_lease(state, out, lease, "its lease ran out", now)


def _event(kind: EventKind, worker: str, now: float, key: int, detail: str) -> Event:
    return Event(kind=kind, at_s=now, worker=worker, key=key, detail=detail)
