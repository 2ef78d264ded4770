"""The leases of a worker: each one runs the handler in a task of its own and is answered once.

    offered --take--> running --finish--> unacked --Ack--> forgotten
                         |                   |
                         +---> void                     Revoke, or a Welcome that does not name the lease

A Revoke that refuses the result also ends an unacknowledged lease.

BusyMeter and LeaseBook are pure state. `Jobs` runs the tasks and knows no connection: what it says goes through
`JobCallbacks` and is lost when there is no connection. A lost Failed shows in the next Hello, which does not name the
lease. A Done stays in the book until its Ack and is sent again when a Welcome names its lease, because the hub tells a
result that it needs from a result that comes late.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import structlog

from rlsp_async.errors import ConfigError, ContentError, DataError, EngineError, MessageError
from rlsp_async.messages import Done, Failed, Job, RolloutGroup, StepReport, TrainJob, VerdictSet, Work
from rlsp_async.wire.codec import encode, require_decodable
from rlsp_async.wire.sockets import ConnectionLimits

Taken = Literal["run", "running", "finished", "over", "ended"]
Result = RolloutGroup | VerdictSet | StepReport
Handler = Callable[[Any], Awaitable[Result]]
"""A job of the worker's role to its result. EngineError, DataError, ContentError (groups that cannot be trained on) and
MessageError (a job that cannot be worked now: a step whose predecessor was lost on the way) become Failed; any other
error ends the worker."""

ENDED_KEPT = 1024
ERROR_CHARACTERS = 2000
LARGEST_FACTOR = 8

log = structlog.get_logger("jobs")


class BusyMeter:
    """Adds up the seconds in which at least one lease was running. Time is an argument, in seconds."""

    def __init__(self, now: float) -> None:
        self._since = now
        self._at = now
        self._busy_s = 0.0
        self._running = 0

    def running(self, num_leases: int, now: float) -> None:
        """From `now` on, `num_leases` leases run."""
        self._advance(now)
        self._running = num_leases

    def take(self, now: float) -> tuple[float, float]:
        """(seconds busy, seconds passed) since the last call."""
        self._advance(now)
        result = (self._busy_s, now - self._since)
        self._since, self._busy_s = now, 0.0
        return result

    def _advance(self, now: float) -> None:
        if self._running:
            self._busy_s += now - self._at
        self._at = now


class LeaseBook:
    """The leases that a worker holds.

    At most `credit` run at once. A finished lease keeps its Done, as bytes, until the hub has acknowledged it.
    """

    def __init__(self, credit: int) -> None:
        self.credit = credit
        self.keys: dict[int, int] = {}
        """Lease -> its group id or step, for every lease that is held."""
        self.running: set[int] = set()
        self.unacked: dict[int, bytes] = {}
        self._ended: deque[int] = deque(maxlen=ENDED_KEPT)

    def take(self, lease: int, key: int = 0) -> Taken:
        """Decides what to do with a Work.

        "run": start it. "running": nothing, it runs already. "finished": send its Done again. "over": refuse it, the
        credit is used up. "ended": nothing, it came twice and has ended.
        """
        if lease in self.running:
            return "running"
        if lease in self.unacked:
            return "finished"
        if lease in self._ended:
            return "ended"
        if len(self.running) >= self.credit:
            return "over"
        self.running.add(lease)
        self.keys[lease] = key
        return "run"

    def finish(self, lease: int, done: bytes) -> bool:
        """Notes that a lease's Done is ready. False: the lease is void by now, and nothing is to be sent."""
        if lease not in self.running:
            return False
        self.running.remove(lease)
        self.unacked[lease] = done
        return True

    def fail(self, lease: int) -> bool:
        """Ends a lease with a Failed, which has no Ack. False: the lease is void by now, and nothing is to be sent."""
        if lease not in self.running:
            return False
        self.void(lease)
        return True

    def void(self, lease: int) -> None:
        """Forgets a lease that was acknowledged, or revoked while it ran. Idempotent."""
        self.running.discard(lease)
        self.unacked.pop(lease, None)
        self.keys.pop(lease, None)
        if lease not in self._ended:
            self._ended.append(lease)  # its Work may still arrive, or arrive again

    def held(self) -> list[int]:
        """The leases that a Hello names: running and unacknowledged, in order."""
        return sorted(self.running | self.unacked.keys())

    def reconcile(self, kept: Iterable[int]) -> list[int]:
        """Forgets the running leases that a Welcome does not keep, and returns them: their tasks must be stopped."""
        lost = sorted(self.running - set(kept))
        for lease in lost:
            self.void(lease)
        return lost


@dataclass(frozen=True, kw_only=True)
class JobCallbacks:
    """How `Jobs` reaches the connection."""

    send: Callable[[bytes], None]
    """Sends a frame, or drops it while there is no connection."""
    send_done: Callable[[bytes], None]
    """Sends a Done, or drops it until the hub has said Welcome."""
    end: Callable[[BaseException], None]
    """Receives an error after which the worker cannot go on."""
    acknowledged: Callable[[int, int], None] | None = None
    """Receives the lease and its group id (or step) when a held result is acknowledged."""


class Jobs:
    """Consumes Work; produces Done and Failed as frames."""

    def __init__(
        self,
        credit: int,
        handler: Handler | None,
        limits: ConnectionLimits,
        callbacks: JobCallbacks,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Without a handler no lease is taken."""
        self.book = LeaseBook(credit if handler else 0)
        self.busy = BusyMeter(clock())
        self._handler, self._limits, self._callbacks, self._clock = handler, limits, callbacks, clock
        self._tasks: dict[int, asyncio.Task[Done]] = {}
        self._sent: dict[int, tuple[float, float]] = {}
        """For each Done without Ack: when it was last sent, and the wait until it is sent again."""
        self._changed = asyncio.Event()

    def take(self, message: Work) -> None:
        """Runs the lease of a Work, unless it is known already, or refuses it because the credit is used up."""
        lease = message.lease
        match self.book.take(lease, _key_of(message.job)):
            case "run":
                self._start(lease, message.job)
            case "over":
                self.refuse(lease, f"above the credit of {self.book.credit}")
            case "finished":
                self._callbacks.send_done(self.book.unacked[lease])
            case "running" | "ended":
                log.info("lease repeated", lease=lease)

    def refuse(self, lease: int, why: str) -> None:
        """Returns a lease that was not worked on; the hub charges nothing for it."""
        self._callbacks.send(encode(Failed(lease=lease, kind="returned", error=why)))

    def repeat_unacked(self, now: float, after_s: float) -> None:
        """Sends every Done again that has had no Ack for `after_s`: the Done or its Ack may be lost.

        The wait doubles up to LARGEST_FACTOR times `after_s`, so that a hub that is merely slow is not flooded.
        """
        for lease, frame in self.book.unacked.items():
            sent_s, wait_s = self._sent.get(lease, (now, after_s))
            if now - sent_s >= wait_s:
                sent_s, wait_s = now, min(2 * wait_s, LARGEST_FACTOR * after_s)
                self._callbacks.send_done(frame)
            self._sent[lease] = sent_s, wait_s
        for lease in [lease for lease in self._sent if lease not in self.book.unacked]:
            del self._sent[lease]

    def acknowledged(self, lease: int) -> None:
        """The result of a lease is on the hub's disk. Idempotent."""
        if self._callbacks.acknowledged is not None and lease in self.book.unacked:
            self._callbacks.acknowledged(lease, self.book.keys[lease])
        self.void(lease)

    def revoke(self, lease: int, refused: bool = False) -> None:
        """Cancels the task of a lease. A result that is ready stays until its Ack, unless the hub has refused it.
        Idempotent."""
        if refused or lease not in self.book.unacked:
            self.void(lease)

    def void(self, lease: int) -> None:
        """Cancels the task of a lease, if it still runs, and forgets its result. Idempotent."""
        self.book.void(lease)
        if task := self._tasks.pop(lease, None):
            task.cancel()
        self._count()

    def reconcile(self, kept: Iterable[int]) -> None:
        """Takes over the hub's view after a reconnect: stops what the hub does not keep, sends every Done again."""
        for lease in self.book.reconcile(kept):
            self.void(lease)
        for frame in self.book.unacked.values():
            self._callbacks.send_done(frame)

    def return_all(self, why: str) -> None:
        """Ends every running lease with a Failed."""
        for lease in sorted(self.book.running):
            self.void(lease)
            self.refuse(lease, why)

    async def wait_settled(self, bound_s: float) -> bool:
        """Waits at most `bound_s` until no lease is held. Whether that came about."""
        try:
            async with asyncio.timeout(bound_s):
                while self.book.held():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """Cancels the tasks that run and waits for their end."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, lease: int, job: Job) -> None:
        assert self._handler is not None
        task = asyncio.create_task(self._answer(self._handler, lease, job), name=f"lease-{lease}")
        self._tasks[lease] = task
        task.add_done_callback(lambda done: self._ended(lease, done))
        self._count()

    @staticmethod
    async def _answer(handler: Handler, lease: int, job: Job) -> Done:
        return _as_done(lease, await handler(job))

    def _ended(self, lease: int, task: asyncio.Task[Done]) -> None:
        """The handler has returned, failed, or was cancelled.

        Nothing is sent for a void lease; a bug always ends the worker.
        """
        if self._tasks.get(lease) is task:
            del self._tasks[lease]
        error = asyncio.CancelledError("cancelled") if task.cancelled() else task.exception()
        match error:
            case None:
                self._done(task.result())
            case EngineError() | asyncio.CancelledError():
                self._failed(lease, "infrastructure", error)
            case DataError():
                self._failed(lease, "data", error)
            case ContentError():
                self._failed(lease, "data", error)
            case MessageError():
                self._failed(lease, "returned", error)
            case _:
                self._failed(lease, "infrastructure", error)
                self._callbacks.end(error)
        self._count()

    def _done(self, done: Done) -> None:
        try:
            frame = encode(done, self._limits.max_message_bytes)
            require_decodable(frame, self._limits.max_tokens)
        except (ConfigError, MessageError) as e:
            self._failed(done.lease, "data", e)
        else:
            if self.book.finish(done.lease, frame):
                self._callbacks.send_done(frame)

    def _failed(self, lease: int, kind: Literal["infrastructure", "data", "returned"], error: BaseException) -> None:
        if self.book.fail(lease):
            log.warning("lease failed", lease=lease, kind=kind, error=str(error))
            text = f"{type(error).__name__}: {error}"[:ERROR_CHARACTERS]
            groups = error.groups if isinstance(error, ContentError) else []
            self._callbacks.send(encode(Failed(lease=lease, kind=kind, error=text, groups=groups)))

    def _count(self) -> None:
        self.busy.running(len(self.book.running), self._clock())
        self._changed.set()


def _key_of(job: Job) -> int:
    """The group id of a job, or its step."""
    return job.batch.step if isinstance(job, TrainJob) else job.group_id


def _as_done(lease: int, result: object) -> Done:
    match result:
        case RolloutGroup():
            return Done(lease=lease, groups=[result])
        case VerdictSet():
            return Done(lease=lease, verdicts=[result])
        case StepReport():
            return Done(lease=lease, steps=[result])
        case _:
            raise TypeError(f"a handler answers RolloutGroup, VerdictSet or StepReport, not {type(result).__name__}")
