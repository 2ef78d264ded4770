"""What a worker says it holds against what the hub believes: whatever was lost on the way is mended. Pure.

Any message may be lost, repeated, late or out of order. A Ping names every lease of a worker and the version it
serves; it, and not the memory of what was sent, decides:

    granted, not named by two Pings    the Work, or its Failed, was lost: leased again, and nobody is charged
    named, not granted                 Ack when its result is in, else Revoke
    another version than the newest    NewWeights again, at most every TELL_AGAIN heartbeats
    the run is ending                  Drain again

Pings carry a number that rises; one that is not above the newest heard is a sign of life and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable

from rlsp_async.messages import Ack, Drain, Ping, Revoke
from rlsp_async.replay.crew import Worker
from rlsp_async.replay.setbacks import mislay
from rlsp_async.replay.state import Effects, HubState

GRACE = 2.0
"""Heartbeats in which a Work may be on its way."""
MISSES = 2
"""Pings after that which must not name the lease."""
TELL_AGAIN = 3.0
"""Heartbeats between two tellings of the same version."""


def heard_ping(state: HubState, out: Effects, worker: Worker, ping: Ping, now: float) -> None:
    """A heartbeat. The router has answered it already."""
    if ping.seq and ping.seq <= worker.seq:
        return
    worker.state = ping.state
    worker.windows.append((ping.busy_s, ping.window_s))
    if ping.seq:
        state.crew.heard(worker, ping.seq)
        reconcile(state, out, worker, ping.leases, now)
        if worker.role == "sampler":
            worker.version, worker.made_by = ping.version, ping.made_by
            tell_again(state, out, worker, now)
    if state.ending and worker.role != "observer":
        out.sends.append((worker.peer, Drain(reason=state.message or "the run is complete")))


def reconcile(state: HubState, out: Effects, worker: Worker, named: Iterable[int], now: float) -> None:
    """Compares the leases of both sides."""
    numbers = set(named)
    for lease in list(worker.leases.values()):
        if lease.lease in numbers:
            lease.missed = 0
        elif now - lease.since_s > GRACE * state.cfg.replay.heartbeat_s:
            lease.missed += 1
            if lease.missed >= MISSES:
                state.crew.release(lease.lease)
                mislay(state, out, lease, now)
    void_unknown(state, out, worker, numbers)


def void_unknown(state: HubState, out: Effects, worker: Worker, numbers: set[int]) -> None:
    """Leases that the worker names and does not have."""
    for number in sorted(numbers - worker.leases.keys()):
        if number in state.crew.acked:
            out.sends.append((worker.peer, Ack(lease=number)))
        else:
            out.sends.append((worker.peer, Revoke(lease=number, reason="this lease is over")))


def tell_again(state: HubState, out: Effects, worker: Worker, now: float) -> None:
    """A sampler that serves another version than the newest, and is not at it, is told of it again."""
    ref = state.weights
    if ref is None or worker.state == "loading" or worker.rejections > state.cfg.replay.retries:
        return
    is_newest = (worker.version, worker.made_by) == (ref.version, ref.incarnation)
    if not is_newest and now - worker.told_s > TELL_AGAIN * state.cfg.replay.heartbeat_s:
        state.tell(out, worker, now)
