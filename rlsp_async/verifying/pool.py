"""The work of the verifier service: groups in, one verdict for each rollout out, whatever the responses do.

    async with VerifierPool(cfg) as pool:
        verdicts = await pool.verify(job)       # VerdictSet; many calls at once

    verify(job) -- waits for an idle checker --> checker process --> verdicts

`cfg.verifier.processes` checker processes, each of which may be killed, are forked from one fork server that has loaded
the verifier (`fork_server`). A check that hangs is `timeout`, one during which its process dies is `error`. Neither is
ever a verdict on the answer, and the other responses of the group are judged as if nothing had happened. Nothing that a
checker does outlives this object or its process.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import socket
import sys
from collections import Counter, deque
from types import TracebackType
from typing import Any, Protocol, Self, cast

import msgspec
import structlog

from rlsp_async.config import RunConfig
from rlsp_async.errors import ConfigError, EngineError, MachineError
from rlsp_async.messages import Verdict, VerdictSet, VerifyItem, VerifyJob
from rlsp_async.verifying.base import verifier_name, verifier_options
from rlsp_async.verifying.fork_server import LENGTH, CheckerLimits, ForkOrder, ReadySignal, encode_frame

LOAD_S = 120.0
"""Bound on loading a verifier's libraries, on a busy machine."""
STOP_S = 5.0
"""Bound on the regular end of the fork server, before it is killed."""
START_S = 30.0
"""Bound on the start of a checker process, from the order to fork to its first frame."""
RECYCLE_AFTER = 20_000
"""Number of verdicts after which a checker process is replaced, so that leaks of a library stay small."""
MAX_FRAME_BYTES = 1 << 20
SHOWN = ("correct", "wrong", "unparsable", "timeout", "error")

_VERDICT = msgspec.msgpack.Decoder(Verdict)


class VerifierPool:
    """A fixed number of checker processes; a caller waits until one of them is idle."""

    def __init__(self, cfg: RunConfig) -> None:
        limits = CheckerLimits(memory_mb=cfg.verifier.memory_mb, cpu_s=math.ceil(cfg.verifier.deadline_s) + 1)
        self.fork_server = ForkServer(verifier_name(cfg), verifier_options(cfg), limits)
        self._checkers = [Checker(self.fork_server, cfg.verifier.deadline_s) for _ in range(cfg.verifier.processes)]
        self._idle: asyncio.Queue[Checker] = asyncio.Queue()
        self._counts: Counter[str] = Counter()
        self._busy_ms = 0.0

    async def __aenter__(self) -> Self:
        await self.fork_server.start()
        for checker in self._checkers:
            self._idle.put_nowait(checker)
        if structlog.is_configured():  # else its default would write to standard output
            held = {what.replace(" ", "_"): held for what, held in self.restrictions.items()}
            structlog.get_logger().info("checkers", lane=self.lane, **held)
        return self

    @property
    def lane(self) -> str:
        """Lane of the verifier; known once the pool has started."""
        return self.fork_server.lane

    @property
    def restrictions(self) -> dict[str, bool]:
        """What a checker cannot do on this machine, as tried out: {"no network": True, ...}."""
        return self.fork_server.restrictions

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for checker in self._checkers:
            checker.stop()
        await self.fork_server.stop()

    async def verify(self, job: VerifyJob) -> VerdictSet:
        """Judges the responses of a group: one verdict each, in order.

        Raises:
            EngineError: no checker process can be started.
        """
        checker = await self._idle.get()
        try:
            if not self.fork_server.is_alive:
                checker.stop()
                await self.fork_server.start()
            try:
                verdicts = await checker.check(job.items)
            except EngineError:
                checker.stop()
                if not await self.fork_server.has_ended():
                    raise
                await self.fork_server.start()
                verdicts = await checker.check(job.items)
        finally:
            self._idle.put_nowait(checker)
        self._count(verdicts)
        return VerdictSet(group_id=job.group_id, verdicts=verdicts)

    def metrics(self) -> dict[str, float]:
        """Figures since the last call: number of verdicts, in all and by status, their time in ms, process starts."""
        figures = {"verdicts": float(sum(self._counts.values())), "verdict_ms": self._busy_ms}
        figures |= {f"verdicts_{status}": float(self._counts[status]) for status in SHOWN}
        figures["checker_starts"] = float(sum(checker.num_starts for checker in self._checkers))
        self._counts.clear()
        self._busy_ms = 0.0
        for checker in self._checkers:
            checker.num_starts = 0
        return figures

    def _count(self, verdicts: list[Verdict]) -> None:
        self._counts.update(verdict.status for verdict in verdicts)
        self._busy_ms += sum(verdict.milliseconds for verdict in verdicts)


# --- checkers --------------------------------------------------------------------------------------------------------


class CheckerForker(Protocol):
    """The part of `ForkServer` that a `Checker` uses."""

    def fork(self, channel: socket.socket) -> None:
        """Orders a checker process that serves `channel`."""
        ...

    def kill(self, pid: int) -> None:
        """Orders the end of a checker process."""
        ...

    @property
    def lane(self) -> str:
        """Lane of the verifier."""
        ...


class Checker:
    """One checker process as seen from the service: it gets a batch, sends verdicts, and is killed at the deadline.

        verdicts = await checker.check(items)     # always one verdict for each item

    An item that is not answered within the deadline is `timeout`; one during which the process dies is `error`; the
    items after it go to a fresh process. The deadline of an item counts from the answer before it, so that a slow batch
    does not make its last item late. A process is replaced when it dies, when it hangs, and after RECYCLE_AFTER
    verdicts; in the isolated lane, after each verdict.
    """

    def __init__(self, forker: CheckerForker, deadline_s: float) -> None:
        self._forker = forker
        self._deadline_s = deadline_s
        self._channel: CheckerChannel | None = None
        self._pid = 0
        self._num_served = 0
        self.num_starts = 0

    async def check(self, items: list[VerifyItem]) -> list[Verdict]:
        """Judges the items: one verdict each, in order.

        Raises:
            EngineError: no process can be started.
        """
        verdicts: list[Verdict] = []
        while len(verdicts) < len(items):
            channel = await self._running_process()
            try:
                batch = items[len(verdicts) :][: 1 if self._is_isolated else None]
                answered, fault = await channel.exchange(batch, self._deadline_s)
            except BaseException:
                self.stop()  # cancelled in the middle of a batch: the answers still to come belong to no caller
                raise
            verdicts += answered
            self._num_served += len(answered)
            if fault is not None:
                self.stop()
                verdicts.append(fault)
        return verdicts

    @property
    def _is_isolated(self) -> bool:
        return self._forker.lane == "isolated"

    def stop(self) -> None:
        """Kills the process, if there is one."""
        if self._channel is not None:
            self._channel.close()
            self._forker.kill(self._pid)
            self._channel = None

    async def _running_process(self) -> CheckerChannel:
        """The channel of a living process that may serve another item."""
        limit = 1 if self._is_isolated else RECYCLE_AFTER
        if self._channel is not None and (self._num_served >= limit or self._channel.is_closed):
            self.stop()
        if self._channel is None:
            self._channel, self._pid = await start_child(self._forker, "checker")
            self._num_served = 0
            self.num_starts += 1
        return self._channel


async def start_child(forker: CheckerForker, noun: str) -> tuple[CheckerChannel, int]:
    """Orders a process and waits until it is ready.

    Args:
        forker: forks it.
        noun: what the process is called in errors: "checker", "environment".

    Returns:
        Its channel and its process id.

    Raises:
        EngineError: it cannot be started.
    """
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    channel = CheckerChannel()
    try:
        with theirs:
            forker.fork(theirs)
        await asyncio.get_running_loop().create_connection(lambda: channel, sock=ours)
        async with asyncio.timeout(START_S):
            body = await channel.frame()
        if body is None:
            raise EngineError(f"a process of the {noun} died before it was ready")
        return channel, msgspec.msgpack.decode(body, type=ReadySignal).pid
    except TimeoutError:
        channel.close()
        raise EngineError(f"a process of the {noun} was not ready within {START_S:g} s") from None
    except BaseException:
        channel.close()  # the process ends by itself when its channel closes
        ours.close()
        raise


class CheckerChannel(asyncio.Protocol):
    """Frames to and from one child of a fork server, which has one reader."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._frames: deque[bytes] = deque()
        self._news = asyncio.Event()
        self.is_closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport, to write to it."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transport is not a subclass

    def data_received(self, data: bytes) -> None:
        """Cuts the bytes into frames; closes the channel when a frame is longer than MAX_FRAME_BYTES."""
        self._buffer += data
        at = 0
        while len(self._buffer) >= at + LENGTH.size:
            (length,) = LENGTH.unpack_from(self._buffer, at)
            if length > MAX_FRAME_BYTES:
                self.close()
                break
            if len(self._buffer) < at + LENGTH.size + length:
                break
            self._frames.append(bytes(self._buffer[at + LENGTH.size : at + LENGTH.size + length]))
            at += LENGTH.size + length
        del self._buffer[:at]
        self._news.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wakes the reader: the process has gone."""
        self.is_closed = True
        self._news.set()

    def close(self) -> None:
        """Ends the connection at once."""
        self.is_closed = True
        if self._transport is not None:
            self._transport.abort()

    async def frame(self) -> bytes | None:
        """Returns the next frame, or None when the process has gone. The caller bounds the wait."""
        while not self._frames and not self.is_closed:
            self._news.clear()
            await self._news.wait()
        return self._frames.popleft() if self._frames else None

    def send(self, message: object) -> None:
        """Writes one frame."""
        assert self._transport is not None
        self._transport.write(encode_frame(message))

    async def exchange(self, items: list[VerifyItem], deadline_s: float) -> tuple[list[Verdict], Verdict | None]:
        """Sends a batch and reads its verdicts.

        Returns:
            The verdicts of the first items and, when the batch was not finished, the verdict (timeout or error) on the
            item at which it stopped.
        """
        self.send(items)
        verdicts: list[Verdict] = []
        while len(verdicts) < len(items):
            try:
                async with asyncio.timeout(None if self._frames else deadline_s):
                    body = await self.frame()
            except TimeoutError:
                return verdicts, Verdict(status="timeout", detail=f"no verdict within {deadline_s:g} s")
            if body is None:
                return verdicts, Verdict(status="error", detail="the checker process died")
            try:
                verdicts.append(_VERDICT.decode(body))
            except msgspec.MsgspecError as e:
                return verdicts, Verdict(
                    status="error", detail=f"the checker process sent something that is not a verdict: {e}"
                )
        return verdicts, None


# --- the fork server -------------------------------------------------------------------------------------------------


class ForkServer:
    """A fork server process as seen from its service. `fork` and `kill` never wait for it."""

    def __init__(
        self,
        plugin: str,
        options: dict[str, Any],
        limits: CheckerLimits,
        program: str = "rlsp_async.verifying.fork_server",
        noun: str = "verifier",
    ) -> None:
        """`program` is the module that is run; it loads `plugin`, a verifier or an environment, with its options."""
        self._plugin, self._program, self._noun = plugin, program, noun
        self._variables = [str(name) for key, name in options.items() if key.endswith("_env")]
        self._options = msgspec.json.encode(options).decode()
        self._limits = msgspec.json.encode(limits).decode()
        self._control: socket.socket | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._starting = asyncio.Lock()
        self.lane = "fast"
        self.restrictions: dict[str, bool] = {}

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.returncode is None

    async def has_ended(self) -> bool:
        """Whether the process has ended, or ends within STOP_S."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_S):
                if self._process is not None:
                    await self._process.wait()
        return not self.is_alive

    @property
    def pid(self) -> int | None:
        """Process id; None before the first start."""
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Starts the process unless it runs.

        Raises:
            ConfigError: there is no such plugin or option.
            MachineError: loading it crashed or took longer than LOAD_S.
        """
        async with self._starting:
            if self.is_alive:
                return
            await self.stop()
            self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._control.setblocking(False)
            with theirs:
                self._process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    self._program,
                    str(theirs.fileno()),
                    self._plugin,
                    self._options,
                    self._limits,
                    pass_fds=[theirs.fileno()],
                    env=_environment(self._variables),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.DEVNULL,
                )
            await self._receive_ready()

    async def stop(self) -> None:
        """Ends the process; its checkers end with it."""
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is None:
            return
        try:
            async with asyncio.timeout(STOP_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    def fork(self, channel: socket.socket) -> None:
        """Orders a checker process that serves `channel`.

        Raises:
            EngineError: the fork server does not run or does not take the order.
        """
        self._send(ForkOrder(), [channel.fileno()])

    def kill(self, pid: int) -> None:
        """Orders the end of a checker. Does nothing when the fork server has gone: its checkers went with it."""
        with contextlib.suppress(EngineError):  # it may have gone a moment ago, before its exit is known here
            if self.is_alive:
                self._send(ForkOrder(kill=pid), [])

    def _send(self, order: ForkOrder, descriptors: list[int]) -> None:
        if self._control is None:
            raise EngineError(f"the {self._noun}'s fork server process is not running")
        try:
            socket.send_fds(self._control, [msgspec.msgpack.encode(order)], descriptors)
        except OSError as e:
            raise EngineError(f"the {self._noun}'s fork server process takes no order: {e}") from None

    async def _receive_ready(self) -> None:
        assert self._control is not None
        try:
            async with asyncio.timeout(LOAD_S):
                data = await asyncio.get_running_loop().sock_recv(self._control, 4096)
        except TimeoutError:
            data = b""
        if not data:
            await self.stop()
            raise MachineError(f"{self._noun} {self._plugin!r} could not be loaded; its traceback is above")
        ready = msgspec.msgpack.decode(data[LENGTH.size :], type=ReadySignal)
        if ready.error:
            await self.stop()
            raise ConfigError(ready.error)
        self.lane, self.restrictions = ready.lane, ready.restrictions


def _environment(variables: list[str]) -> dict[str, str]:
    """The environment of the fork server: where its modules are, the variables that its options name, nothing else."""
    named = {name: os.environ[name] for name in variables if name in os.environ}
    paths = [os.path.abspath(path) for path in sys.path]
    return {
        **named,
        "PYTHONPATH": os.pathsep.join(paths),
        "PATH": os.defpath,
        "LANG": "C.UTF-8",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
