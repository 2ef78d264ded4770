"""Requests for weights between a sampler and the learner. Pure.

    sampler --Pull--> hub --Pull--> learner         the sampler's name is stamped by the hub
    sampler <--Invite-- hub <--Invite-- learner
    either --Abandon--> hub --Abandon--> the other one

The hub knows names and the newest version, and nothing else of a transfer: it keeps no ticket and writes nothing to the
journal. A request that is lost is made again by the sampler. One sampler's requests can reach the learner only at the
pace of `Worker.may_relay`, so that a sampler that asks without end does not fill the learner's queue.
"""

from __future__ import annotations

import msgspec

from rlsp_async.messages import Abandon, Invite, Pull, Relayed
from rlsp_async.replay.turn import Turn
from rlsp_async.replay.workers import Worker


def relay(turn: Turn, worker: Worker, message: Relayed) -> None:
    """A worker said something that is meant for another one. The gate has checked that its role may say it."""
    match message:
        case Pull():
            _pull(turn, worker, message)
        case Invite():
            _to_sampler(turn, worker, message)
        case Abandon() if worker.role == "learner":
            _to_sampler(turn, worker, message)
        case Abandon():
            _to_learner(turn, worker, msgspec.structs.replace(message, worker=worker.name))


def left(turn: Turn, worker: Worker) -> None:
    """A worker is gone: the learner closes the channel of a sampler that had asked for one."""
    learner = turn.state.table.learner()
    if worker.role == "sampler" and worker.num_relayed and learner is not None:
        turn.send(learner.peer, Abandon(ticket="", worker=worker.name, reason=f"{worker.name} is gone"))


def _pull(turn: Turn, worker: Worker, pull: Pull) -> None:
    """The newest version is asked of the learner; of another one the sampler hears that it is not the newest."""
    newest = turn.state.training.weights
    if newest is None or (pull.version, pull.made_by) != (newest.version, newest.incarnation):
        what = "no version was published" if newest is None else f"version {newest.version} is the newest"
        turn.send(worker.peer, Abandon(ticket=pull.ticket, worker=worker.name, reason=what))
        turn.offer(worker)
        return
    _to_learner(turn, worker, msgspec.structs.replace(pull, worker=worker.name))


def _to_learner(turn: Turn, worker: Worker, message: Pull | Abandon) -> None:
    learner = turn.state.table.learner()
    if learner is None:
        turn.send(worker.peer, Abandon(ticket=message.ticket, worker=worker.name, reason="no learner is connected"))
    elif worker.may_relay(turn.now):
        turn.send(learner.peer, message)
    else:
        turn.state.count_refusal("relayed")


def _to_sampler(turn: Turn, learner: Worker, message: Invite | Abandon) -> None:
    sampler = turn.state.table.sampler(message.worker)
    if sampler is not None:
        turn.send(sampler.peer, message)
    else:
        reason = f"{message.worker[:128]} is not connected"
        turn.send(learner.peer, Abandon(ticket=message.ticket, worker=message.worker, reason=reason))
