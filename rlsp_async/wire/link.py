"""A worker's connection to the hub: hello, credit, leases, heartbeats, reconnect, drain. Handlers never see a socket.

    connect -> Hello -> Welcome -> Work ... Done ... Ack -> Drain -> Bye
       ^                                |
       +--- back-off <--- hub silent ---+      Hello again, with the leases that are still held

Promises: at most `credit` leases run; each ends with one Done or Failed, or was revoked; a Done is kept until its Ack
and sent again after a reconnect; no wait for a hub is longer than `give_up_s`. Reader, writer, heartbeat and leave are
the four tasks of a connection; leases (`jobs.py`) and loading (`loading.py`) live on when a connection is lost.

The link has one clock for the hub's silence. It measures messages of the hub's application, not of ZeroMQ: a connection
whose hub is silent for `timeout_s` is closed. docs/operations.md says how this clock and three others divide the work.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import structlog

from rlsp_async.contents import printable
from rlsp_async.errors import FencedError, MachineError, UserError
from rlsp_async.messages import (
    Abandon,
    Ack,
    Bye,
    Drain,
    FromHub,
    FromWorker,
    Hello,
    Invite,
    NewWeights,
    Ping,
    Pong,
    Pull,
    Refuse,
    Revoke,
    Role,
    Status,
    Welcome,
    Work,
)
from rlsp_async.wire.codec import encode
from rlsp_async.wire.jobs import Handler, JobCallbacks, Jobs
from rlsp_async.wire.keyring import Keys
from rlsp_async.wire.loading import OnWeights, WeightLoader
from rlsp_async.wire.relayed import RelayedMessages
from rlsp_async.wire.session import Session
from rlsp_async.wire.sockets import ConnectionLimits

LARGEST_FACTOR = 32
REPEAT_HEARTBEATS = 2.0
"""Heartbeats after which a message without an answer is sent again."""
BYES = 3
LEAVE_S = 1.0
"""How long a worker that has said Bye waits for the hub's answer."""

log = structlog.get_logger("wire")


class LinkSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Who the worker is, and how long it waits."""

    run: str
    role: Role
    worker: str
    credit: int = 1
    """Leases it works on at once."""
    incarnation: int = 0
    """Rises with each start of this worker."""
    yields: bool = False
    """No supervisor numbers its starts (`Hello.yields`)."""
    limits: ConnectionLimits = ConnectionLimits()
    """heartbeat_s and timeout_s hold until the hub's Welcome replaces them."""
    give_up_s: float = 120.0
    """The worker ends when no hub has answered for this long."""
    drain_s: float = 30.0
    """How long leases may go on after a Drain; then they are returned."""
    info: dict[str, str] = {}
    """Shown to people: host, process id, engine."""


@dataclass(frozen=True, kw_only=True)
class WorkerHooks:
    """What a worker does for the link."""

    handler: Handler | None = None
    """Works one job. None: the worker only watches (observer)."""
    on_weights: OnWeights | None = None
    """Loads a version of the weights (sampler)."""
    metrics: Callable[[], dict[str, float]] = dict
    """Figures since the last call, for a Ping."""
    step: Callable[[], int] = lambda: -1
    """Newest step in a learner's weights."""
    on_welcome: Callable[[], None] | None = None
    """Is called once, at the first Welcome, before any work; a UserError ends the worker."""
    on_status: Callable[[Status], None] | None = None
    """Is given each Status (observer)."""
    relayed: RelayedMessages | None = None
    """Speaks with another worker through the hub (sampler, learner)."""
    on_acknowledged: Callable[[int, int], None] | None = None
    """Is given the lease and its group id (or step) when a result is acknowledged."""


def backoff_s(attempt: int, heartbeat_s: float, jitter: float) -> float:
    """The wait before attempt 0, 1, 2 ...: 1, 2, 4 .. 32 heartbeats, each times 0.75 .. 1.25 by `jitter` in 0..1.

    Doubling (zguide ch. 4, Paranoid Pirate) spares a hub that is starting; jitter keeps workers that lost the hub at
    the same moment from coming back at the same moment.
    """
    return heartbeat_s * min(2.0 ** min(attempt, 10), LARGEST_FACTOR) * (0.75 + 0.5 * jitter)


class WorkerLink:
    """Connects a handler to the hub. `await link.run()` returns why it left: a Drain, or `drain()`."""

    def __init__(
        self,
        settings: LinkSettings,
        address: Callable[[], str | None],
        hooks: WorkerHooks,
        keys: Keys | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`address` is asked before each connection; None means that the address is not known yet."""
        self.settings = settings
        self._address, self._hooks, self._keys, self._now = address, hooks, keys, clock
        self._limits = settings.limits
        callbacks = JobCallbacks(
            send=self._send, send_done=self._send_done, end=self._end, acknowledged=hooks.on_acknowledged
        )
        self._jobs = Jobs(settings.credit, hooks.handler, self._limits, callbacks, clock)
        self._loader = WeightLoader(hooks.on_weights, self._post) if hooks.on_weights else None
        if hooks.relayed is not None:
            hooks.relayed.attach(self._post_relayed)
        self._session: Session | None = None
        self._obstacle = ""
        """What stood between this worker and the hub in the newest session."""
        self._welcomed = False
        self._hello_at = 0.0
        self._heard_at = 0.0
        """When this connection began, or was last answered by a hub that had said Welcome: the hub's silence."""
        self._answered_at = 0.0
        """When any connection was last answered: bounds the search for a hub."""
        self._num_sessions, self._num_hellos, self._num_pings = 0, 0, 0
        self._stop, self._heard_bye = asyncio.Event(), asyncio.Event()
        self._reason, self._deadline = "", float("inf")
        self._fatal: BaseException | None = None
        self._left, self._was_welcome = False, False
        self._refused_at: float | None = None
        """When the hub first refused this worker because of another start; None after a Welcome."""

    @property
    def is_welcome(self) -> bool:
        """Whether the hub has welcomed this worker in the present session, or has it wait for another start."""
        return self._welcomed or self._refused_at is not None

    @property
    def obstacle(self) -> str:
        """What stands between this worker and the hub, in words; empty before the first session."""
        return self._session.obstacle if self._session is not None else self._obstacle

    async def run(self) -> str:
        """Works until drained; returns the reason for leaving.

        Raises MachineError when no hub answers for `give_up_s`, UserError when the hub refuses this worker, and any
        error of the handler other than EngineError, DataError and MessageError.
        """
        loading = asyncio.create_task(self._loader.run() if self._loader else _idle(), name="weights")
        loading.add_done_callback(self._loader_ended)
        try:
            await self._run_sessions()
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
            self._deadline = self._now() + (self.settings.drain_s if bound_s is None else bound_s)
            self._stop.set()

    # --- connections -----------------------------------------------------------------------------------------------

    async def _run_sessions(self) -> None:
        """Opens one session after another, with back-off, until the worker has left, must leave, or waited too long."""
        attempt, self._answered_at = 0, self._now()
        while True:
            address, before = self._address(), self._answered_at
            if address is not None:
                await self._run_session(address)
            now = self._now()
            left_s = self._answered_at + self.settings.give_up_s - now
            if self._left or now >= self._deadline or (self._stop.is_set() and not self._jobs.book.held()):
                return
            if left_s <= 0:
                self._fatal = MachineError(no_hub(address, now - self._answered_at, self._obstacle))
                return
            attempt = 0 if self._answered_at > before else attempt + 1
            wait_s = backoff_s(attempt, self._limits.heartbeat_s, random.random())
            await self._pause(min(wait_s, left_s))

    async def _pause(self, seconds: float) -> None:
        """Waits before the next connection; a stop that comes meanwhile ends the wait."""
        if self._stop.is_set():
            await asyncio.sleep(max(0.0, min(seconds, self._deadline - self._now())))
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stop.wait()

    async def _run_session(self, address: str) -> None:
        """One connection, until it is lost or the worker has left."""
        self._num_sessions += 1
        identity = f"{self.settings.worker}/{self.settings.incarnation}/{self._num_sessions}"
        session = Session(address, identity, 2 * self.settings.credit + 64, self._limits, self._keys)
        self._session = session
        self._heard_at = self._now()
        self._hello()
        parts = [
            session.read(self._handle),
            session.write(),
            session.watch(),
            self._send_pings(session),
            self._leave(),
        ]
        tasks = [asyncio.ensure_future(part) for part in [*parts, session.lost.wait()]]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._session, self._welcomed, self._obstacle = None, False, session.obstacle
            # Cancelling a recv may lose a frame: the socket is closed with all it holds; a Hello repeats what counts.
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            session.close()
        for error in ended:
            if isinstance(error, Exception):
                raise error

    async def _send_pings(self, session: Session) -> None:
        """Sends a Ping every heartbeat; returns when the hub is silent for `timeout_s`, or a drain takes too long."""
        while True:
            await asyncio.sleep(self._limits.heartbeat_s)
            now = self._now()
            silent_s = now - self._heard_at
            if silent_s > self._limits.timeout_s or now >= self._deadline + LEAVE_S:
                log.warning("hub lost", address=session.address, silent_s=round(silent_s, 3))
                return
            if not self._welcomed and now - self._hello_at >= REPEAT_HEARTBEATS * self._limits.heartbeat_s:
                self._hello()
            self._jobs.repeat_unacked(now, REPEAT_HEARTBEATS * self._limits.heartbeat_s)
            self._ping(now)

    async def _leave(self) -> None:
        """Waits for a stop, then for the leases and their Acks up to the deadline; returns the rest; says Bye."""
        await self._stop.wait()
        self._ping(self._now())
        await self._jobs.wait_settled(max(0.0, self._deadline - self._now()))
        self._jobs.return_all(f"{self.settings.worker} left: {self._reason}")
        self._left = True
        for _ in range(BYES):
            self._post(Bye(reason=self._reason))
            # Closing a socket that is still being written to makes the hub's ZeroMQ drop what it has not read yet.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LEAVE_S / BYES):
                    await self._heard_bye.wait()
                return

    # --- what the hub sends -----------------------------------------------------------------------------------------

    def _handle(self, message: FromHub) -> None:
        if self._welcomed:
            self._heard()
        match message:
            case Work(lease=lease) if self._stop.is_set():
                self._jobs.refuse(lease, f"{self.settings.worker} takes no work: {self._reason}")
            case Work():
                self._jobs.take(message)
            case Ack(lease=lease):
                self._jobs.acknowledged(lease)
            case Revoke(lease=lease, reason=reason, refused=refused):
                if refused:
                    log.warning("the hub refuses a result", lease=lease, reason=reason)
                self._jobs.revoke(lease, refused)
            case Welcome():
                self._welcome(message)
            case Pong(known=False) if self._left:
                self._heard_bye.set()
            case Pong(known=False) if self._now() - self._hello_at >= self._limits.heartbeat_s / 2:
                self._hello()
            case NewWeights(weights=ref) if self._loader:
                self._loader.offer(ref)
            case Drain(reason=reason):
                self.drain(reason)
            case Refuse():
                self._refused(message)
            case Status() if self._hooks.on_status:
                self._hooks.on_status(message)
            case Pull() | Invite() | Abandon() if self._hooks.relayed is not None:
                self._hooks.relayed.on_message(message)
            case Pong() | NewWeights() | Status() | Pull() | Invite() | Abandon():
                pass

    def _welcome(self, message: Welcome) -> None:
        if self._welcomed or message.seq not in (0, self._num_hellos):
            return  # a repetition, or the answer to an older Hello: its leases are out of date
        self._welcomed, self._refused_at = True, None
        self._heard()
        if self._hooks.on_welcome is not None and not self._was_welcome:
            try:
                self._hooks.on_welcome()
            except UserError as e:
                self._end(e)
                return
        self._was_welcome = True
        self._limits = msgspec.structs.replace(
            self._limits, heartbeat_s=message.heartbeat_s, timeout_s=message.timeout_s
        )
        self._jobs.reconcile(message.leases)
        if message.weights is not None and self._loader:
            self._loader.offer(message.weights, message.incarnation)
        log.info("welcome", hub=message.incarnation, kept=len(message.leases))

    def _refused(self, message: Refuse) -> None:
        """Ends the worker with the hub's reason, but not before the other start of its name had time to leave."""
        now = self._now()
        self._answered_at = now
        if self._refused_at is None:
            self._refused_at = now
        if now - self._refused_at >= message.retry_s:
            kind = FencedError if message.fenced else UserError
            self._end(kind(f"the replay hub refuses {self.settings.worker}: {printable(message.reason)}"))

    def _heard(self) -> None:
        self._answered_at = self._now()
        self._heard_at = self._answered_at

    def _loader_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            self._end(error)

    def _end(self, error: BaseException) -> None:
        """The worker cannot go on: says so to the hub, briefly, and `run` raises `error`."""
        self._fatal = self._fatal or error
        self._reason = f"{type(error).__name__}: {error}"
        self._deadline = self._now()
        self._stop.set()

    # --- what the worker sends --------------------------------------------------------------------------------------

    def _hello(self) -> None:
        s = self.settings
        self._welcomed, self._hello_at = False, self._now()
        self._num_hellos += 1
        book = self._jobs.book
        self._post(
            Hello(
                run=s.run,
                role=s.role,
                worker=s.worker,
                credit=book.credit,
                step=self._hooks.step(),
                incarnation=s.incarnation,
                yields=s.yields,
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
                metrics=self._hooks.metrics(),
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
        self._send(encode(message, self._limits.max_message_bytes))

    def _post_relayed(self, message: FromWorker) -> None:
        """A message before the Welcome would come from a stranger."""
        if self._welcomed:
            self._post(message)

    def _send(self, frame: bytes) -> None:
        """Puts a frame into the outbox if there is a connection. A result stays in the book; Hello tells the rest."""
        if self._session:
            self._session.post(frame)

    def _send_done(self, frame: bytes) -> None:
        """Sends a Done, but only after the Welcome: an earlier one may meet a hub that does not know the lease yet."""
        if self._welcomed:
            self._send(frame)


async def _idle() -> None:
    """Stands for the loader of a worker that loads no weights."""


def no_hub(address: str | None, seconds: float, obstacle: str) -> str:
    """The sentence of a worker that no hub has answered."""
    if address is None:
        return f"no hub.json for {seconds:.0f} s: start `rlsp replay CONFIG`, or set replay.address to where it listens"
    return (
        f"no replay hub has answered at {address} for {seconds:.0f} s ({obstacle}): is `rlsp replay` with this run's "
        "name there, and do its keys let this worker in (replay.keys; see `rlsp keys list`)?"
    )
