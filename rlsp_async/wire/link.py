"""A worker's life on the line: hello, credit, leases, heartbeats, reconnect, drain. Handlers never see a socket.

    connect -> Hello -> Welcome -> Work ... Done ... Ack -> Drain -> Bye
       ^                                |
       +--- back-off <--- hub silent ---+      Hello again, with the leases that are still held

Promises: at most `credit` leases run; each ends with one Done or Failed, or was revoked; a Done is kept until its Ack
and said again after a reconnect; no wait for a hub is longer than `give_up_s`. Reader, writer, heartbeat and leave are
the four tasks of a connection; leases (`jobs.py`) and loading (`loading.py`) live on when a connection is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import time
from collections.abc import Callable

import msgspec
import structlog

from rlsp_async.errors import MachineError, UserError
from rlsp_async.messages import (
    Ack,
    Bye,
    Drain,
    FromHub,
    FromWorker,
    Hello,
    NewWeights,
    Ping,
    Pong,
    Refuse,
    Revoke,
    Role,
    Status,
    Welcome,
    Work,
)
from rlsp_async.wire.codec import encode
from rlsp_async.wire.jobs import Handler, Jobs
from rlsp_async.wire.keyring import Keys
from rlsp_async.wire.loading import OnWeights, WeightLoader
from rlsp_async.wire.session import Session
from rlsp_async.wire.sockets import ConnectionLimits


class LinkSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Who the worker is and how patient."""

    run: str
    role: Role
    worker: str
    credit: int = 1
    """Leases it works on at once."""
    incarnation: int = 0
    """Rises with each start of this worker."""
    limits: ConnectionLimits = ConnectionLimits()
    """Until the hub's Welcome says its own heartbeat_s and timeout_s."""
    give_up_s: float = 120.0
    """Without a hub for so long the worker ends."""
    drain_s: float = 30.0
    """How long leases may go on after a Drain; then they are returned."""
    info: dict[str, str] = {}


LARGEST_FACTOR = 32


class Liveness:
    """When each name was last heard. A name is gone when it has been silent for more than `timeout_s`."""

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._heard: dict[str, float] = {}

    def heard(self, name: str, now: float) -> None:
        """A sign of life. Time never runs backwards: an older `now` changes nothing."""
        self._heard[name] = max(now, self._heard.get(name, now))

    def forget(self, name: str) -> None:
        """It left on purpose; its silence means nothing."""
        self._heard.pop(name, None)

    def silent_s(self, name: str, now: float) -> float:
        """Seconds since it was heard; infinite for a name that never was."""
        return now - self._heard[name] if name in self._heard else math.inf

    def is_gone(self, name: str, now: float) -> bool:
        """Whether it has been silent for too long."""
        return self.silent_s(name, now) > self.timeout_s

    def gone(self, now: float) -> list[str]:
        """All that are, the longest silent first."""
        names = [name for name in self._heard if self.is_gone(name, now)]
        return sorted(names, key=lambda name: self._heard[name])

    def beats_left(self, name: str, now: float, heartbeat_s: float) -> int:
        """Heartbeats that may still be missed before it is gone; 0 when it is."""
        left_s = self.timeout_s - self.silent_s(name, now)
        return max(0, math.ceil(left_s / heartbeat_s)) if left_s > 0 else 0


def backoff_s(attempt: int, heartbeat_s: float, jitter: float) -> float:
    """Wait before attempt 0, 1, 2 ...: 1, 2, 4 .. 32 heartbeats, each times 0.75 .. 1.25 by `jitter` in 0..1.

    Doubling (zguide ch. 4, Paranoid Pirate) spares a hub that is starting; jitter keeps workers that lost it together
    from coming back together.
    """
    return heartbeat_s * min(2.0 ** min(attempt, 10), LARGEST_FACTOR) * (0.75 + 0.5 * jitter)


__all__ = ["LinkSettings", "WorkerLink"]

HUB = "hub"
REPEAT_HEARTBEATS = 2.0
"""What has had no answer for so long is said again."""
BYES = 3
LEAVE_S = 1.0
"""How long a worker that has said Bye waits for the hub's answer."""

log = structlog.get_logger("wire")


class WorkerLink:
    """Connects a handler to the hub. `await link.run()` returns why it left: a Drain, or `drain()`."""

    def __init__(
        self,
        settings: LinkSettings,
        address: Callable[[], str | None],
        handler: Handler | None = None,
        *,
        on_weights: OnWeights | None = None,
        metrics: Callable[[], dict[str, float]] | None = None,
        step: Callable[[], int] | None = None,
        on_status: Callable[[Status], None] | None = None,
        keys: Keys | None = None,
    ) -> None:
        """`address` is asked before each connection (None: not known yet); `step` says the newest step in a learner's
        weights; without a handler the worker only watches (observer)."""
        self.settings = settings
        self._address, self._keys = address, keys
        self._metrics, self._step, self._on_status = metrics or dict, step or (lambda: -1), on_status
        self._limits = settings.limits
        self._jobs = Jobs(
            settings.credit,
            handler,
            self._limits.max_message_bytes,
            self._limits.max_tokens,
            self._say,
            self._say_done,
            self._end,
        )
        self._loader = WeightLoader(on_weights, self._post) if on_weights else None
        self._live = Liveness(self._limits.timeout_s)
        self._session: Session | None = None
        self._welcomed = False
        self._hello_at, self._answered_at = 0.0, 0.0
        self._num_sessions, self._num_hellos, self._num_pings = 0, 0, 0
        self._stop, self._heard_bye = asyncio.Event(), asyncio.Event()
        self._reason, self._deadline = "", float("inf")
        self._fatal: BaseException | None = None
        self._over = False

    async def run(self) -> str:
        """Works until drained. Raises MachineError when no hub answers for `give_up_s`, UserError when the hub refuses
        this worker, and whatever the handler raised that is neither EngineError nor DataError."""
        loading = asyncio.create_task(self._loader.run() if self._loader else _idle(), name="weights")
        loading.add_done_callback(self._loader_ended)
        try:
            await self._connections()
        finally:
            await self._jobs.close()
            loading.cancel()
            await asyncio.gather(loading, return_exceptions=True)
        if self._fatal is not None:
            raise self._fatal
        return self._reason

    def drain(self, reason: str, bound_s: float | None = None) -> None:
        """Takes no new lease, finishes those it holds within `bound_s` (default `drain_s`), then leaves. Idempotent."""
        if not self._stop.is_set():
            self._reason = reason
            self._deadline = time.monotonic() + (self.settings.drain_s if bound_s is None else bound_s)
            self._stop.set()

    # --- connections -----------------------------------------------------------------------------------------------

    async def _connections(self) -> None:
        """One session after another, with back-off; ends when the worker has left, must, or has waited too long."""
        attempt, self._answered_at = 0, time.monotonic()
        while True:
            address, before = self._address(), self._answered_at
            if address is not None:
                await self._converse(address)
            now = time.monotonic()
            left_s = self._answered_at + self.settings.give_up_s - now
            if self._over or now >= self._deadline or (self._stop.is_set() and not self._jobs.book.held()):
                return
            if left_s <= 0:
                self._fatal = MachineError(_nobody_there(address, now - self._answered_at))
                return
            attempt = 0 if self._answered_at > before else attempt + 1
            wait_s = backoff_s(attempt, self._limits.heartbeat_s, random.random())
            await self._pause(min(wait_s, left_s))

    async def _pause(self, seconds: float) -> None:
        """Waits before the next connection; a stop that comes meanwhile ends the wait."""
        if self._stop.is_set():
            await asyncio.sleep(max(0.0, min(seconds, self._deadline - time.monotonic())))
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stop.wait()

    async def _converse(self, address: str) -> None:
        """One connection, until it is lost or the worker has left."""
        self._num_sessions += 1
        identity = f"{self.settings.worker}/{self.settings.incarnation}/{self._num_sessions}"
        session = Session(address, identity, 2 * self.settings.credit + 64, self._limits, self._keys)
        self._session = session
        self._live.heard(HUB, time.monotonic())
        self._hello()
        running = [session.read(self._on), session.write(), self._beat(session), self._leave(), session.lost.wait()]
        tasks = [asyncio.ensure_future(one) for one in running]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._session, self._welcomed = None, False
            # Cancelling a recv may lose a frame: this socket goes with all it holds, and Hello says anew what counts.
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            session.close()
        for error in ended:
            if isinstance(error, Exception):
                raise error

    async def _beat(self, session: Session) -> None:
        """A Ping every heartbeat; returns when the hub has been silent for too long, or a drain has taken too long."""
        while True:
            await asyncio.sleep(self._limits.heartbeat_s)
            now = time.monotonic()
            if self._live.is_gone(HUB, now) or now >= self._deadline + LEAVE_S:
                log.warning("hub lost", address=session.address, silent_s=round(self._live.silent_s(HUB, now), 3))
                return
            if not self._welcomed and now - self._hello_at >= REPEAT_HEARTBEATS * self._limits.heartbeat_s:
                self._hello()
            self._jobs.say_again(now, REPEAT_HEARTBEATS * self._limits.heartbeat_s)
            self._ping(now)

    async def _leave(self) -> None:
        """Waits for a stop, then for the leases and their Acks up to the deadline; returns the rest, says Bye."""
        await self._stop.wait()
        self._ping(time.monotonic())
        await self._jobs.settled(max(0.0, self._deadline - time.monotonic()))
        self._jobs.give_back(f"{self.settings.worker} left: {self._reason}")
        self._over = True
        for _ in range(BYES):
            self._post(Bye(reason=self._reason))
            # Closing a socket that is still being written to makes the hub's ZeroMQ drop what it has not read yet.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LEAVE_S / BYES):
                    await self._heard_bye.wait()
                return

    # --- what the hub says -----------------------------------------------------------------------------------------

    def _on(self, message: FromHub) -> None:
        if self._welcomed:
            self._heard()
        match message:
            case Work(lease=lease) if self._stop.is_set():
                self._jobs.refuse(lease, f"{self.settings.worker} takes no work: {self._reason}")
            case Work():
                self._jobs.work(message)
            case Ack(lease=lease):
                self._jobs.acknowledged(lease)
            case Revoke(lease=lease):
                self._jobs.revoke(lease)
            case Welcome():
                self._welcome(message)
            case Pong(known=False) if self._over:
                self._heard_bye.set()
            case Pong(known=False) if time.monotonic() - self._hello_at >= self._limits.heartbeat_s / 2:
                self._hello()
            case NewWeights(weights=ref) if self._loader:
                self._loader.offer(ref)
            case Drain(reason=reason):
                self.drain(reason)
            case Refuse(reason=reason):
                self._end(UserError(f"the replay hub refuses {self.settings.worker}: {reason}"))
            case Status() if self._on_status:
                self._on_status(message)
            case Pong() | NewWeights() | Status():
                pass

    def _welcome(self, message: Welcome) -> None:
        if self._welcomed or message.seq not in (0, self._num_hellos):
            return  # it came twice, or answers an older Hello: what it says of leases is out of date
        self._welcomed = True
        self._live.timeout_s = message.timeout_s
        self._heard()
        self._limits = msgspec.structs.replace(
            self._limits, heartbeat_s=message.heartbeat_s, timeout_s=message.timeout_s
        )
        self._jobs.reconcile(message.leases)
        if message.weights is not None and self._loader:
            self._loader.offer(message.weights, message.incarnation)
        log.info("welcome", hub=message.incarnation, kept=len(message.leases))

    def _heard(self) -> None:
        self._answered_at = time.monotonic()
        self._live.heard(HUB, self._answered_at)

    def _loader_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            self._end(error)

    def _end(self, error: BaseException) -> None:
        """The worker cannot go on: says so to the hub, briefly, and `run` raises `error`."""
        self._fatal = self._fatal or error
        self._reason = f"{type(error).__name__}: {error}"
        self._deadline = time.monotonic()
        self._stop.set()

    # --- what the worker says --------------------------------------------------------------------------------------

    def _hello(self) -> None:
        s = self.settings
        self._welcomed, self._hello_at = False, time.monotonic()
        self._num_hellos += 1
        book = self._jobs.book
        self._post(
            Hello(
                run=s.run,
                role=s.role,
                worker=s.worker,
                credit=book.credit,
                step=self._step(),
                incarnation=s.incarnation,
                leases=book.held(),
                holding=dict(book.keys),
                seq=self._num_hellos,
                info=s.info,
            )
        )

    def _ping(self, now: float) -> None:
        busy_s, window_s = self._jobs.busy.take(now)
        self._num_pings += 1
        self._post(
            Ping(
                state=self._state(),
                busy_s=busy_s,
                window_s=window_s,
                metrics=self._metrics(),
                seq=self._num_pings,
                leases=self._jobs.book.held(),
                version=self._loader.version if self._loader else -1,
                made_by=self._loader.made_by if self._loader else 0,
            )
        )

    def _state(self) -> str:
        if self._stop.is_set():
            return "draining"
        if self._loader and self._loader.loading:
            return "loading"
        if self._jobs.book.running:
            return "working"
        return "waiting_credit" if self._jobs.book.unacked else "waiting_work"

    def _post(self, message: FromWorker) -> None:
        self._say(encode(message, self._limits.max_message_bytes))

    def _say(self, frame: bytes) -> None:
        """Into the outbox if there is a connection; what must not be lost is in the book, and Hello tells the rest."""
        if self._session:
            self._session.post(frame)

    def _say_done(self, frame: bytes) -> None:
        """Before its Welcome a hub may not know the lease any more; the Welcome brings the Done up again."""
        if self._welcomed:
            self._say(frame)


async def _idle() -> None:
    """The loader of a worker that loads no weights."""


def _nobody_there(address: str | None, seconds: float) -> str:
    if address is None:
        return f"no hub.json for {seconds:.0f} s: start `rlsp replay CONFIG`, or set replay.address to where it listens"
    return f"no replay hub has answered at {address} for {seconds:.0f} s: is it up; do its keys let this worker in?"
