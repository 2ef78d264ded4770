"""The hub's end of the wire: one ROUTER socket that all workers connect to.

    router = Router(limits)
    address = await router.bind("tcp://127.0.0.1:0")
    for peer, message in await router.receive(): ...
    router.send(peer, Ack(lease=7))

A peer is one connection: it begins with a Hello and has a new routing id after every reconnect of the worker. Promises:
nothing here blocks the loop; a frame that is not of the protocol, or that its sender may not send (`gate.py`), is
counted and dropped; so is a message of a peer without a Hello, and its Ping is answered by Pong(known=False), which
makes the worker say Hello again. With keys, only connections whose key is on the list are heard (`auth.py`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from types import TracebackType
from typing import Any, TypeVar, cast

import msgspec
import zmq

from rlsp_async.errors import MachineError, MessageError
from rlsp_async.messages import FromHub, FromWorker
from rlsp_async.wire.auth import AllowList, Authenticator, require_private
from rlsp_async.wire.codec import TooLongError, decode_from_worker, encode
from rlsp_async.wire.gate import Gate, RefusalCounts
from rlsp_async.wire.keyring import HubKeys
from rlsp_async.wire.sockets import ConnectionLimits, Context, Socket, make_router

T = TypeVar("T")

CLOSE_S = 0.5
FRAMES = 2
"""Routing id and message."""


class Router:
    """The hub's socket.

    `receive` waits once and then takes up to `drain` frames without waiting, which is 2 to 20 times as fast as a wait
    for each frame.
    """

    def __init__(self, limits: ConnectionLimits | None = None, keys: HubKeys | None = None, drain: int = 256) -> None:
        self._limits = limits or ConnectionLimits()
        self._keys = keys
        self._drain = drain
        self._gate = Gate()
        self._over = ""
        self.address = ""
        """Where it listens, once it is bound."""
        self.authenticator: Authenticator | None = None
        """Of a bound router with keys."""
        self._context: Context | None = None
        self._socket: Socket | None = None

    async def bind(self, address: str) -> str:
        """Listens; returns the real address (port 0 becomes a free port). Raises MachineError."""
        require_private(address, has_keys=self._keys is not None)
        self._context = Context()
        try:
            if self._keys is not None:
                allowed = AllowList(self._keys.allowed)
                self._gate = Gate(allowed.find)
                self._gate.over = self._over
                self.authenticator = Authenticator(self._context, allowed, self.counts)
                self.authenticator.open()  # first: a client that connects before it would be refused
            self._socket = make_router(self._context, self._limits, self._keys.keys if self._keys else None)
            self._socket.bind(address)
        except zmq.ZMQError as e:
            self.close()
            raise MachineError(_bind_error(address, e)) from None
        except MachineError:
            self.close()
            raise
        endpoint = cast("bytes", self._socket.getsockopt(zmq.LAST_ENDPOINT))
        self.address = endpoint.rstrip(b"\0").decode()
        return self.address

    @property
    def counts(self) -> RefusalCounts:
        """What was dropped or refused so far."""
        return self._gate.counts

    def run_over(self, reason: str) -> None:
        """From now on a worker that asks, before its Hello, whether the run goes on is told that it does not."""
        self._over = self._gate.over = reason

    def refusals(self) -> dict[str, float]:
        """The counts above 0, as metrics of the run: {"refused.malformed": 3.0}."""
        counted = msgspec.structs.asdict(self.counts)
        return {f"refused.{name}": float(num) for name, num in counted.items() if num}

    async def receive(self) -> list[tuple[bytes, FromWorker]]:
        """Waits for a frame, then takes what else has arrived. Empty when no frame was for the caller."""
        socket, copy = self._open(), self._keys is None  # only a Frame carries the user id
        if self.authenticator is not None:
            self.authenticator.require_alive()
        await asyncio.sleep(0)  # recv does not suspend when a frame waits: a peer that never pauses would hold the loop
        arrived: list[list[Any]] = [await socket.recv_multipart(copy=copy)]
        while len(arrived) < self._drain:
            try:
                arrived.append(_finished(socket.recv_multipart(flags=zmq.NOBLOCK, copy=copy)).result())
            except zmq.Again:
                break
        now = time.monotonic()
        return [heard for frames in arrived if (heard := self._admit(frames, now)) is not None]

    def send(self, peer: bytes, message: FromHub) -> bool:
        """Gives a message to ZeroMQ without waiting. False, and counted, when the peer is gone or its queue is full.

        Raises ConfigError when the message is longer than the limit.
        """
        frame = encode(message, self._limits.max_message_bytes)
        if not self._gate.may_hear(peer):
            self.counts.undelivered += 1
            return False
        error = _finished(self._open().send_multipart([peer, frame], flags=zmq.NOBLOCK)).exception()
        if error is None:
            return True
        if not isinstance(error, zmq.ZMQError) or error.errno not in (zmq.EAGAIN, zmq.EHOSTUNREACH):
            raise error
        if error.errno == zmq.EHOSTUNREACH:
            self._gate.forget(peer)
        self.counts.undelivered += 1
        return False

    def close(self) -> None:
        """Frees the port; waits at most CLOSE_S for frames that ZeroMQ still holds. Idempotent."""
        if self.authenticator is not None:
            self.authenticator.close()
        if self._socket is not None:
            self._socket.close(linger=round(CLOSE_S * 1000))
        if self._context is not None:
            self._context.destroy(linger=0)
        self._socket = self._context = self.authenticator = None

    async def __aenter__(self) -> Router:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> Socket:
        assert self._socket is not None, "bind first"
        return self._socket

    def _admit(self, frames: list[Any], now: float) -> tuple[bytes, FromWorker] | None:
        """The routing id and the message of one frame, when the hub is to see it."""
        peer, key = _sender(frames[0])
        if not self._gate.screen(peer, key, now):
            return None
        message = self._decoded(frames)
        if message is None:
            return None
        heard, reply = self._gate.admit(peer, key, message)
        if reply is not None:
            self.send(peer, reply)
        return (peer, message) if heard else None

    def _decoded(self, frames: list[Any]) -> FromWorker | None:
        """The decoded message; None, and counted, when it is not of the protocol."""
        if len(frames) != FRAMES:
            self.counts.malformed += 1
            return None
        body = frames[1] if isinstance(frames[1], bytes) else frames[1].bytes
        try:
            return decode_from_worker(body, self._limits.max_tokens)
        except TooLongError:
            self.counts.too_long += 1
        except MessageError:
            self.counts.malformed += 1
        return None


def _sender(frame: bytes | zmq.Frame) -> tuple[bytes, str]:
    """Routing id and, with keys, the user id that the authenticator gave the connection."""
    return (frame, "") if isinstance(frame, bytes) else (frame.bytes, cast("str", frame.get("User-Id")))


def _finished(answer: Awaitable[T]) -> asyncio.Future[T]:
    """The future of a NOBLOCK call, which pyzmq returns completed.

    The call goes through the asyncio socket, not around it, so that pyzmq looks at the edge-triggered descriptor again
    and no waiting frame is overlooked.
    """
    return cast("asyncio.Future[T]", answer)


def _bind_error(address: str, error: zmq.ZMQError) -> str:
    if error.errno == zmq.EADDRINUSE:
        return (
            f"{address} is taken by another process: stop it, or set replay.address to another port "
            "(tcp://127.0.0.1:0 takes a free one)"
        )
    if error.errno == zmq.EADDRNOTAVAIL:
        return f"{address} is no address of this machine: set replay.address to one that is, e.g. tcp://127.0.0.1:0"
    return f"replay.address = {address!r} cannot be bound ({error.strerror}): write it like tcp://127.0.0.1:5700"
