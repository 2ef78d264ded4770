"""The hub's end: one ROUTER socket, all workers on it.

    router = Router(limits)
    address = await router.bind("tcp://127.0.0.1:0")
    for peer, message in await router.receive(): ...
    router.send(peer, Ack(lease=7))

A peer is one connection: it begins with a Hello and has a new name after every reconnect of the worker. Promises:
nothing here blocks the loop; a frame that is not of the protocol is counted and dropped; a message of a peer that said
no Hello is counted and dropped, and its Ping is answered by Pong(known=False), which makes it say Hello again.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable
from types import TracebackType
from typing import TypeVar, cast

import msgspec
import zmq

from rlsp_async.errors import MachineError, MessageError
from rlsp_async.messages import Bye, FromHub, FromWorker, Hello, Ping, Pong
from rlsp_async.wire.codec import decode_from_worker, encode
from rlsp_async.wire.keys import Keys, require_private
from rlsp_async.wire.sockets import Context, Limits, Socket, router

T = TypeVar("T")

MAX_PEERS = 4096
CLOSE_S = 0.5


class Counts(msgspec.Struct):
    """What went wrong on the socket since it was bound."""

    malformed: int = 0
    """Frames that are not of the protocol."""
    strangers: int = 0
    """Messages of connections that had said no Hello."""
    undelivered: int = 0
    """Messages for a peer that is gone or takes nothing."""


class Router:
    """One await, then a drain without waiting, up to `drain` frames a call (RELIABILITY 2.4: 2-20 times the rate)."""

    def __init__(self, limits: Limits | None = None, keys: Keys | None = None, drain: int = 256) -> None:
        self.counts = Counts()
        self._limits = limits or Limits()
        self._keys = keys
        self._drain = drain
        self._peers: OrderedDict[bytes, None] = OrderedDict()
        self._context: Context | None = None
        self._socket: Socket | None = None

    async def bind(self, address: str) -> str:
        """Listens; returns the real address (port 0 becomes the port that was free). Raises MachineError."""
        require_private(address, self._keys)
        self._context = Context()
        try:
            self._socket = router(self._context, self._limits, self._keys)
            self._socket.bind(address)
        except zmq.ZMQError as e:
            self.close()
            raise MachineError(_why_not(address, e)) from None
        endpoint = cast("bytes", self._socket.getsockopt(zmq.LAST_ENDPOINT))
        return endpoint.rstrip(b"\0").decode()

    async def receive(self) -> list[tuple[bytes, FromWorker]]:
        """Waits for a frame, then takes what else has arrived. Can be empty: the frames were not for the caller."""
        socket = self._open()
        arrived = [await socket.recv_multipart()]
        while len(arrived) < self._drain:
            try:
                arrived.append(_now(socket.recv_multipart(flags=zmq.NOBLOCK)).result())
            except zmq.Again:
                break
        return [kept for frames in arrived if (kept := self._admit(frames)) is not None]

    def send(self, peer: bytes, message: FromHub) -> bool:
        """Hands a message to ZeroMQ without waiting. False, and counted, when the peer is gone or takes nothing.

        Raises ConfigError when the message is longer than the limit.
        """
        frame = encode(message, self._limits.max_message_bytes)
        error = _now(self._open().send_multipart([peer, frame], flags=zmq.NOBLOCK)).exception()
        if error is None:
            return True
        if not isinstance(error, zmq.ZMQError) or error.errno not in (zmq.EAGAIN, zmq.EHOSTUNREACH):
            raise error
        if error.errno == zmq.EHOSTUNREACH:
            self._peers.pop(peer, None)
        self.counts.undelivered += 1
        return False

    def close(self) -> None:
        """Frees the port; waits at most half a second for what ZeroMQ still holds. Idempotent."""
        if self._socket is not None:
            self._socket.close(linger=round(CLOSE_S * 1000))
        if self._context is not None:
            self._context.destroy(linger=0)
        self._socket = self._context = None

    async def __aenter__(self) -> Router:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None,
                        trace: TracebackType | None) -> None:
        self.close()

    def _open(self) -> Socket:
        assert self._socket is not None, "bind first"
        return self._socket

    def _admit(self, frames: list[bytes]) -> tuple[bytes, FromWorker] | None:
        """What the hub gets to see of one message."""
        peer, *body = frames
        try:
            message = decode_from_worker(b"".join(body))
        except MessageError:
            self.counts.malformed += 1
            return None
        if isinstance(message, Hello):
            self._greet(peer)
        known = peer in self._peers
        if isinstance(message, Bye):
            self._peers.pop(peer, None)
        if isinstance(message, Ping | Bye):
            self.send(peer, Pong(known=peer in self._peers))
        if not known:
            self.counts.strangers += 1
            return None
        return peer, message

    def _greet(self, peer: bytes) -> None:
        """Remembers a connection; the oldest goes when there are too many (it will be asked to say Hello again)."""
        self._peers[peer] = None
        self._peers.move_to_end(peer)
        if len(self._peers) > MAX_PEERS:
            self._peers.popitem(last=False)


def _now(answer: Awaitable[T]) -> asyncio.Future[T]:
    """pyzmq answers a NOBLOCK call with a future that is done. Sent through the asyncio socket, and not past it, so
    that pyzmq looks again at the edge-triggered descriptor and no waiting frame is overlooked."""
    return cast("asyncio.Future[T]", answer)


def _why_not(address: str, error: zmq.ZMQError) -> str:
    if error.errno == zmq.EADDRINUSE:
        return (f"{address} is taken by another process: stop it, or set replay.address to another port "
                "(tcp://127.0.0.1:0 takes a free one)")
    if error.errno == zmq.EADDRNOTAVAIL:
        return f"{address} is no address of this machine: set replay.address to one that is, e.g. tcp://127.0.0.1:0"
    return f"replay.address = {address!r} cannot be bound ({error.strerror}): write it like tcp://127.0.0.1:5700"
