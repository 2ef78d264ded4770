"""Runs the handler for each lease: one task a lease, never more than the credit, one answer each.

Knows no connection: what it says goes through `say` and is lost when there is none; a lost Failed shows in the next
Hello, which does not name the lease. A Done goes through `say_done`, which drops it when the hub has not said Welcome:
it stays in the book until its Ack and is said again when a Welcome names its lease.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Literal

import structlog

from rlsp_async.errors import ConfigError, DataError, EngineError, MessageError
from rlsp_async.messages import Done, Failed, Job, RolloutGroup, StepReport, TrainJob, VerdictSet, Work
from rlsp_async.wire.codec import encode, require_decodable


class BusyMeter:
    """Adds up the seconds in which at least one lease was running."""

    def __init__(self, now: float) -> None:
        self._since = now
        self._at = now
        self._busy_s = 0.0
        self._running = 0

    def running(self, num_leases: int, now: float) -> None:
        """From `now` on, so many leases run."""
        self._advance(now)
        self._running = num_leases

    def take(self, now: float) -> tuple[float, float]:
        """(busy_s, window_s) since the last call."""
        self._advance(now)
        result = (self._busy_s, now - self._since)
        self._since, self._busy_s = now, 0.0
        return result

    def _advance(self, now: float) -> None:
        if self._running:
            self._busy_s += now - self._at
        self._at = now


Taken = Literal["run", "running", "finished", "over", "ended"]

ENDED_KEPT = 1024


class LeaseBook:
    """At most `credit` leases run at once. A finished one keeps its Done as bytes until the hub has committed it."""

    def __init__(self, credit: int) -> None:
        self.credit = credit
        self.keys: dict[int, int] = {}
        """Of each lease held, its group id or step."""
        self.running: set[int] = set()
        self.unacked: dict[int, bytes] = {}
        self._ended: deque[int] = deque(maxlen=ENDED_KEPT)

    def take(self, lease: int, key: int = 0) -> Taken:
        """What to do with a Work: run it; nothing, it is running; say its Done again; refuse it, above the credit;
        nothing, it came twice and has ended."""
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
        """Its Done is ready. False: the lease is void by now, say nothing."""
        if lease not in self.running:
            return False
        self.running.remove(lease)
        self.unacked[lease] = done
        return True

    def fail(self, lease: int) -> bool:
        """It ends with a Failed, which nobody acknowledges. False: the lease is void by now, say nothing."""
        if lease not in self.running:
            return False
        self.void(lease)
        return True

    def void(self, lease: int) -> None:
        """Acknowledged, or revoked while it ran: forget it. Idempotent."""
        self.running.discard(lease)
        self.unacked.pop(lease, None)
        self.keys.pop(lease, None)
        if lease not in self._ended:
            self._ended.append(lease)  # its Work may still come, or come again

    def held(self) -> list[int]:
        """What a Hello says: running and unacked, in order."""
        return sorted(self.running | self.unacked.keys())

    def reconcile(self, kept: Iterable[int]) -> list[int]:
        """A Welcome came: forget what runs and the hub does not keep; returns the forgotten, which must be stopped."""
        lost = sorted(self.running - set(kept))
        for lease in lost:
            self.void(lease)
        return lost


Result = RolloutGroup | VerdictSet | StepReport
Handler = Callable[[Any], Awaitable[Result]]
"""A job of the worker's role to its result. EngineError, DataError and MessageError (a job that cannot be worked now: a
step whose predecessor was lost on the way) become Failed, anything else ends the worker."""

ERROR_CHARACTERS = 2000
LOG_ACKS = "RLSP_LOG_ACKS"
"""Set by a harness that compares what workers were told with what the journal holds."""
LARGEST_FACTOR = 8

log = structlog.get_logger("jobs")


class Jobs:
    """Consumes Work, produces Done and Failed as frames for `say`; `end` is told of an error nobody can work with."""

    def __init__(
        self,
        credit: int,
        handler: Handler | None,
        max_bytes: int,
        max_tokens: int,
        say: Callable[[bytes], None],
        say_done: Callable[[bytes], None],
        end: Callable[[BaseException], None],
    ) -> None:
        self.book = LeaseBook(credit if handler else 0)
        self.busy = BusyMeter(time.monotonic())
        self._handler, self._max_bytes, self._max_tokens = handler, max_bytes, max_tokens
        self._say, self._say_done, self._end = say, say_done, end
        self._tasks: dict[int, asyncio.Task[Done]] = {}
        self._said: dict[int, tuple[float, float]] = {}
        """Of each Done without Ack: when it was said (again), and how long to wait until the next time."""
        self._changed = asyncio.Event()

    def work(self, message: Work) -> None:
        """A lease came: it is run, or known already, or refused because it is above the credit."""
        lease = message.lease
        match self.book.take(lease, _key(message.job)):
            case "run":
                self._start(lease, message.job)
            case "over":
                self.refuse(lease, f"above the credit of {self.book.credit}")
            case "finished":
                self._say_done(self.book.unacked[lease])
            case "running" | "ended":
                log.info("lease repeated", lease=lease)

    def refuse(self, lease: int, why: str) -> None:
        """Answers a lease that is not taken, or given back: nothing went wrong with it."""
        self._say(encode(Failed(lease=lease, kind="returned", error=why)))

    def say_again(self, now: float, after_s: float) -> None:
        """Every Done that has had no Ack for `after_s` is said again: it, or its Ack, may be lost. The wait doubles up
        to LARGEST_FACTOR times, so that a hub that is merely slow is not buried."""
        for lease, frame in self.book.unacked.items():
            said_s, wait_s = self._said.get(lease, (now, after_s))
            if now - said_s >= wait_s:
                said_s, wait_s = now, min(2 * wait_s, LARGEST_FACTOR * after_s)
                self._say_done(frame)
            self._said[lease] = said_s, wait_s
        for lease in [lease for lease in self._said if lease not in self.book.unacked]:
            del self._said[lease]

    def acknowledged(self, lease: int) -> None:
        """Its result is on the hub's disk. Idempotent."""
        if LOG_ACKS in os.environ and lease in self.book.unacked:
            log.info("acknowledged", lease=lease, key=self.book.keys[lease])
        self.void(lease)

    def revoke(self, lease: int) -> None:
        """The lease is void: its task is cancelled. A result that is ready stays until its Ack. Idempotent."""
        if lease not in self.book.unacked:
            self.void(lease)

    def void(self, lease: int) -> None:
        """Acknowledged or revoked: its task, if it still runs, is cancelled and its result forgotten. Idempotent."""
        self.book.void(lease)
        if task := self._tasks.pop(lease, None):
            task.cancel()
        self._count()

    def reconcile(self, kept: Iterable[int]) -> None:
        """The hub's view after a reconnect: drops what it does not keep, says again what is kept and done."""
        for lease in self.book.reconcile(kept):
            self.void(lease)
        for frame in self.book.unacked.values():
            self._say_done(frame)

    def give_back(self, why: str) -> None:
        """Ends every running lease with a Failed."""
        for lease in sorted(self.book.running):
            self.void(lease)
            self.refuse(lease, why)

    async def settled(self, bound_s: float) -> bool:
        """Waits until no lease is held (all acknowledged), at most `bound_s`. Whether that is so."""
        try:
            async with asyncio.timeout(bound_s):
                while self.book.held():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """Cancels what runs and waits for it."""
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
        """The handler has returned, failed, or was cancelled. A void lease says nothing; a bug is never hushed up."""
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
            case MessageError():
                self._failed(lease, "returned", error)
            case _:
                self._failed(lease, "infrastructure", error)
                self._end(error)
        self._count()

    def _done(self, done: Done) -> None:
        try:
            frame = encode(done, self._max_bytes)
            require_decodable(frame, self._max_tokens)
        except (ConfigError, MessageError) as e:
            self._failed(done.lease, "data", e)
        else:
            if self.book.finish(done.lease, frame):
                self._say_done(frame)

    def _failed(self, lease: int, kind: Literal["infrastructure", "data", "returned"], error: BaseException) -> None:
        if self.book.fail(lease):
            log.warning("lease failed", lease=lease, kind=kind, error=str(error))
            text = f"{type(error).__name__}: {error}"[:ERROR_CHARACTERS]
            self._say(encode(Failed(lease=lease, kind=kind, error=text)))

    def _count(self) -> None:
        self.busy.running(len(self.book.running), time.monotonic())
        self._changed.set()


def _key(job: Job) -> int:
    """Group id, or step."""
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
