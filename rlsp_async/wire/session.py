"""One connection of a worker to the hub: a socket, a bounded outbox, one reader task and one writer task.

It knows frames, not the protocol. When it is lost it is closed and never used again (Paranoid Pirate): what it still
held is said again by the next one.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable

import zmq

from rlsp_async.errors import MachineError, MessageError
from rlsp_async.messages import FromHub
from rlsp_async.wire.codec import decode_from_hub
from rlsp_async.wire.keyring import Keys
from rlsp_async.wire.sockets import ConnectionLimits, Context, Socket, make_dealer

ID_BYTES = 8


class Session:
    """Consumes frames by `post`; hands what arrives to `on_message`. Lost as soon as its outbox is full.

    Raises MachineError for an address that is none, or keys without the hub's.
    """

    def __init__(
        self, address: str, identity: str, queue: int, limits: ConnectionLimits, keys: Keys | None = None
    ) -> None:
        self.address = address
        self.num_malformed = 0
        self.lost = asyncio.Event()
        self._outbox: asyncio.Queue[bytes] = asyncio.Queue(queue)
        self._max_tokens = limits.max_tokens
        self._context = Context()
        self._socket: Socket | None = None
        try:
            # Nobody can guess the id and wait on it for what was meant for this connection.
            secret = secrets.token_hex(ID_BYTES)
            self._socket = make_dealer(self._context, f"{identity}/{secret}".encode(), queue, limits, keys)
            self._socket.connect(address)
        except zmq.ZMQError as e:
            self.close()
            raise MachineError(
                f"the hub's address {address!r} cannot be used ({e.strerror}): write it like "
                "tcp://127.0.0.1:5700 (replay.address)"
            ) from None
        except MachineError:
            self.close()
            raise

    def post(self, frame: bytes) -> None:
        """Puts a frame into the outbox. A full outbox means that nobody takes anything: the session is lost."""
        try:
            self._outbox.put_nowait(frame)
        except asyncio.QueueFull:
            self.lost.set()

    async def read(self, on_message: Callable[[FromHub], None]) -> None:
        """Consumes the socket, waits for a frame, ends by cancelling. Malformed frames are counted and dropped."""
        while True:
            frames = await self._open().recv_multipart()
            try:
                message = decode_from_hub(_only(frames), self._max_tokens)
            except MessageError:
                self.num_malformed += 1
                continue
            on_message(message)

    async def write(self) -> None:
        """Consumes the outbox, waits for the socket to take a frame, ends by cancelling (the socket goes, too)."""
        while True:
            frame = await self._outbox.get()
            await self._open().send(frame)

    def _open(self) -> Socket:
        assert self._socket is not None
        return self._socket

    def close(self) -> None:
        """Ends the connection at once; what ZeroMQ still holds is dropped. Idempotent."""
        if self._socket is not None:
            self._socket.close(linger=0)
        self._context.destroy(linger=0)


def _only(frames: list[bytes]) -> bytes:
    """A message is one frame."""
    if len(frames) != 1:
        raise MessageError(f"{len(frames)} frames are no message of the hub")
    return frames[0]
