"""What a worker says it holds, against what the hub gave it. Pure.

Any message may be lost, come twice, late or out of order. So nothing rests on one message: every Ping (and Hello) says
the whole state of its worker, and the hub repairs the difference.

    given, not named    the Work, or its Failed, was lost: it goes to the front of the queue, nobody is to blame
    named, not given    the Ack or the Revoke was lost: it is said again
    another version     the Loaded or the NewWeights was lost: believed, or offered again
    not draining        the Drain was lost: said again
"""

from __future__ import annotations

from rlsp_async.messages import Ack, Drain, Hello, Ping, Revoke
from rlsp_async.replay.setbacks import lose_lease
from rlsp_async.replay.state import Effects, HubState
from rlsp_async.replay.workers import KIND_OF, Worker

STRAY_HEARTBEATS = 3.0
"""A lease that is younger may still be on its way."""
MISSES = 2
"""So many Pings in a row must not name an older one."""
OFFER_HEARTBEATS = 3.0
"""How often weights are offered again."""


def pinged(state: HubState, out: Effects, worker: Worker, ping: Ping, now: float) -> None:
    """A heartbeat. One that comes late says nothing that is still true; one without `seq` says nothing of leases."""
    if ping.seq and ping.seq <= worker.ping_seq:
        return
    worker.state = ping.state
    worker.windows.append((ping.busy_s, ping.window_s))
    if not ping.seq:
        return
    worker.ping_seq = ping.seq
    named = set(ping.leases)
    young_s = STRAY_HEARTBEATS * state.cfg.replay.heartbeat_s
    for lease in list(worker.leases.values()):
        is_missed = lease.lease not in named and now - lease.since_s > young_s
        lease.missed = lease.missed + 1 if is_missed else 0
        if lease.missed >= MISSES:
            state.crew.release(lease.lease)
            lose_lease(state, out, lease, "never got it", now, "returned")
    for number in sorted(named - worker.leases.keys()):
        is_in = number in state.crew.acked
        out.sends.append((worker.peer, Ack(lease=number) if is_in else Revoke(lease=number, reason="it is over")))
    if worker.role == "sampler":
        _version(state, out, worker, ping, now)
    if state.ending and ping.state != "draining" and worker.role != "observer":
        out.sends.append((worker.peer, Drain(reason=state.message or "the run is complete")))


def _version(state: HubState, out: Effects, worker: Worker, ping: Ping, now: float) -> None:
    if state.weights is None:
        return  # it serves what the run began with
    worker.version = ping.version
    late = now - worker.offered_s > OFFER_HEARTBEATS * state.cfg.replay.heartbeat_s
    is_newest = (ping.version, ping.made_by) == (state.version, state.weights.incarnation)
    if not is_newest and ping.state != "loading" and late and worker.rejections <= state.cfg.replay.retries:
        state.tell(out, worker, now)


def adopt(state: HubState, worker: Worker, hello: Hello, now: float) -> None:
    """After a restart of the hub: leases that a worker still holds, and whose work is still to be done, are taken up
    under their old numbers, so that nothing that was sampled, verified or trained is done twice."""
    if worker.role == "observer":
        return
    kind = KIND_OF[worker.role]
    crew = state.crew
    for number, key in sorted(hello.holding.items()):
        is_known = number in crew.leases or number in crew.acked or (kind, key) in crew.holders
        if not is_known and worker.free > 0 and _is_open(state, kind, key):
            crew.lease(worker, kind, key, now, number)
            state.reserved.discard(key)


def _is_open(state: HubState, kind: str, key: int) -> bool:
    if kind == "train":
        return state.step < key <= state.last_manifest
    head = state.ledger.heads.get(key)
    return head is not None and head.state == ("issued" if kind == "sample" else "sampled")
