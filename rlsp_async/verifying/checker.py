"""The service's side of one checker process: sends it a batch, reads its verdicts, kills it at the deadline.

    verdicts = await checker.check(items)     # always one verdict an item

An item that is not answered within the deadline is `timeout`; one during which the process dies is `error`; the
items after it go to a fresh process. The deadline counts from the answer before, so a slow batch is no fault of its
last item.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from typing import Protocol, cast

import msgspec

from rlsp_async.errors import EngineError
from rlsp_async.messages import Verdict, VerifyItem
from rlsp_async.verifying.fork_server import LENGTH, Ready, frame

MAX_FRAME_BYTES = 1 << 20
RECYCLE_AFTER = 20_000
"""Verdicts after which a process is replaced: what a library leaks goes with it."""
START_S = 30.0
"""A fork that has not said that it is ready by then never will."""

_VERDICT = msgspec.msgpack.Decoder(Verdict)


class Forker(Protocol):
    """What a checker needs of the nursery."""

    def fork(self, channel: socket.socket) -> None: ...

    def kill(self, pid: int) -> None: ...

    @property
    def lane(self) -> str: ...


class Checker:
    """One killable process, replaced whenever it dies, hangs or has served long enough."""

    def __init__(self, forker: Forker, deadline_s: float) -> None:
        self._forker = forker
        self._deadline_s = deadline_s
        self._channel: Channel | None = None
        self._pid = 0
        self._num_served = 0
        self.num_starts = 0

    async def check(self, items: list[VerifyItem]) -> list[Verdict]:
        """One verdict an item, in order. Raises EngineError when no process can be started."""
        verdicts: list[Verdict] = []
        while len(verdicts) < len(items):
            channel = await self._ready()
            try:
                batch = items[len(verdicts) :][: 1 if self._is_isolated else None]
                got, fault = await channel.exchange(batch, self._deadline_s)
            except BaseException:
                self.stop()  # cancelled in mid-batch: what it would answer next belongs to nobody
                raise
            verdicts += got
            self._num_served += len(got)
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

    async def _ready(self) -> Channel:
        """A living process."""
        limit = 1 if self._is_isolated else RECYCLE_AFTER
        if self._channel is not None and (self._num_served >= limit or self._channel.is_closed):
            self.stop()
        if self._channel is None:
            self._channel, self._pid = await self._start()
            self._num_served = 0
            self.num_starts += 1
        return self._channel

    async def _start(self) -> tuple[Channel, int]:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        channel = Channel()
        try:
            with theirs:
                self._forker.fork(theirs)
            await asyncio.get_running_loop().create_connection(lambda: channel, sock=ours)
            async with asyncio.timeout(START_S):
                body = await channel.frame()
            if body is None:
                raise EngineError("a checker process died before it was ready")
            return channel, msgspec.msgpack.decode(body, type=Ready).pid
        except TimeoutError:
            channel.close()
            raise EngineError(f"a checker process was not ready within {START_S:g} s") from None
        except BaseException:
            channel.close()  # the process ends by itself when its channel closes
            ours.close()
            raise


class Channel(asyncio.Protocol):
    """Frames from one checker. `exchange` is the only reader."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._frames: deque[bytes] = deque()
        self._news = asyncio.Event()
        self.is_closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
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
        self.is_closed = True
        self._news.set()

    def close(self) -> None:
        self.is_closed = True
        if self._transport is not None:
            self._transport.abort()

    async def frame(self) -> bytes | None:
        """The next frame; None when the other side has gone. Waits for the process; its caller sets the limit."""
        while not self._frames and not self.is_closed:
            self._news.clear()
            await self._news.wait()
        return self._frames.popleft() if self._frames else None

    async def exchange(self, items: list[VerifyItem], deadline_s: float) -> tuple[list[Verdict], Verdict | None]:
        """Verdicts of the first items, and, if it did not get through, the verdict on the one that stopped it."""
        assert self._transport is not None
        self._transport.write(frame(items))
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
                return verdicts, Verdict(status="error", detail=f"the checker process sent no verdict: {e}")
        return verdicts, None
