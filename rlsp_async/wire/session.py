"""One connection of a worker to the hub: a socket, a bounded outbox, one reader task and one writer task.

A session knows frames, not the protocol. A lost session is closed and never used again (Paranoid Pirate pattern); the
next session repeats what it still held. It listens to ZeroMQ's monitor of its socket, so that it can say what stands
between this worker and the hub: no answer looks the same whether nobody listens or a key is refused.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable

import zmq
from zmq.utils.monitor import recv_monitor_message

from rlsp_async.errors import MachineError, MessageError
from rlsp_async.messages import FromHub
from rlsp_async.wire.codec import decode_from_hub
from rlsp_async.wire.keyring import Keys
from rlsp_async.wire.sockets import ConnectionLimits, Context, Socket, make_dealer

ID_BYTES = 8
_EVENTS = (
    zmq.EVENT_CLOSED,
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL,
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL,
    zmq.EVENT_HANDSHAKE_FAILED_AUTH,
    zmq.EVENT_HANDSHAKE_SUCCEEDED,
)
"""In rising order of what they tell."""


class Session:
    """Consumes frames by `post`; passes messages that arrive to `on_message`. Lost as soon as its outbox is full.

    Raises MachineError for an invalid address, or for keys without the hub's public key.
    """

    def __init__(
        self, address: str, identity: str, queue: int, limits: ConnectionLimits, keys: Keys | None = None
    ) -> None:
        self.address = address
        self.num_malformed = 0
        self.lost = asyncio.Event()
        self._outbox: asyncio.Queue[bytes] = asyncio.Queue(queue)
        self._max_tokens = limits.max_tokens
        self._keys = keys
        self._told = -1
        """Number of the most telling of the _EVENTS so far."""
        self._context = Context()
        self._socket: Socket | None = None
        self._monitor: Socket | None = None
        try:
            # Random digits: another client must not guess the id and receive what is meant for this connection.
            self.routing_id = f"{identity}/{secrets.token_hex(ID_BYTES)}".encode()
            self._socket = make_dealer(self._context, self.routing_id, queue, limits, keys)
            events = 0
            for event in _EVENTS:
                events |= event
            self._monitor = self._socket.get_monitor_socket(events)
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
        """Puts a frame into the outbox. When the outbox is full, no frame is being sent: the session is lost."""
        try:
            self._outbox.put_nowait(frame)
        except asyncio.QueueFull:
            self.lost.set()

    async def read(self, on_message: Callable[[FromHub], None]) -> None:
        """Consumes the socket, waits for a frame, ends by cancelling. Malformed frames are counted and dropped."""
        while True:
            frames = await self._open().recv_multipart()
            try:
                message = decode_from_hub(_single_frame(frames), self._max_tokens)
            except MessageError:
                self.num_malformed += 1
                continue
            on_message(message)

    async def write(self) -> None:
        """Consumes the outbox, waits for the socket to take a frame, ends by cancelling (the socket is closed, too)."""
        while True:
            frame = await self._outbox.get()
            await self._open().send(frame)

    async def watch(self) -> None:
        """Consumes the monitor of the socket, from which `obstacle` speaks; ends by cancelling."""
        assert self._monitor is not None
        while True:
            event = (await recv_monitor_message(self._monitor))["event"]
            if event in _EVENTS:
                self._told = max(self._told, _EVENTS.index(event))

    @property
    def obstacle(self) -> str:
        """What stands between this worker and the hub, as far as it is known, in words."""
        event = _EVENTS[self._told] if self._told >= 0 else None
        match event:
            case zmq.EVENT_HANDSHAKE_SUCCEEDED:
                return "a hub is reached there and does not answer yet"
            case zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                key = self._keys.public.decode() if self._keys else ""
                return f"the hub there refuses this worker's key {key}: it is not on its list, or was revoked"
            case zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL if self._keys is None:
                return "the hub there asks for a key: set replay.keys"
            case zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
                return "what listens there uses no keys: it is no hub, or one that was started without replay.keys"
            case zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL if self._keys is not None:
                return "hub.public is not the key of the hub that listens there, or that is no hub"
            case zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
                return "what listens there is no hub, or one that asks for a key"
            case zmq.EVENT_CLOSED:
                return "nothing listens there"
            case _:
                return "no connection has come about"

    def _open(self) -> Socket:
        assert self._socket is not None
        return self._socket

    def close(self) -> None:
        """Ends the connection at once; frames that ZeroMQ still holds are dropped. Idempotent."""
        if self._socket is not None:
            self._socket.disable_monitor()
            self._socket.close(linger=0)
        self._context.destroy(linger=0)


def _single_frame(frames: list[bytes]) -> bytes:
    """The single frame of a message. Raises MessageError."""
    if len(frames) != 1:
        raise MessageError(f"{len(frames)} frames are no message of the hub")
    return frames[0]
