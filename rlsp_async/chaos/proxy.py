"""Between the workers and the hub: forwards whole messages both ways, and mistreats them as `Mischief` says.

    worker DEALER  <-->  ROUTER [proxy] DEALER, one a connection, same routing id  <-->  ROUTER hub

Plain sockets on loopback: a run with keys cannot be listened to, which is the point of keys.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import cast

import zmq
import zmq.asyncio

from rlsp_async.chaos.mischief import Mischief

MAX_LATE = 20_000
"""Messages that wait at once; above that they are dropped and counted."""
IDLE_S = 30.0
"""A connection that was silent for so long is closed."""
QUEUE = 4096


class Proxy:
    """`target()` is the hub's address now (None: not known); when it changes, connections to the old one are closed."""

    def __init__(self, target: Callable[[], str | None], mischief: Mischief) -> None:
        self._target, self._mischief = target, mischief
        self._context = zmq.asyncio.Context()
        self._front: zmq.asyncio.Socket
        self._backs: dict[bytes, zmq.asyncio.Socket] = {}
        self._seen_s: dict[bytes, float] = {}
        self._readers: dict[bytes, asyncio.Task[None]] = {}
        self._address: str | None = None
        self._num_late = 0
        self.num_dropped = 0
        """Because there was no hub, no room, or too many late ones."""

    def bind(self) -> str:
        """Listens on a free port; returns the address for the workers."""
        self._front = self._context.socket(zmq.ROUTER)
        _common(self._front)
        self._front.setsockopt(zmq.ROUTER_MANDATORY, 1)
        port = self._front.bind_to_random_port("tcp://127.0.0.1")
        return f"tcp://127.0.0.1:{port}"

    @property
    def num_known(self) -> int:
        """Workers that were heard of lately."""
        return len(self._seen_s)

    async def run(self) -> None:
        """Forwards until cancelled."""
        sweeper = asyncio.create_task(self._sweep())
        try:
            while True:
                identity, *frames = await self._front.recv_multipart()
                self._seen_s[identity] = time.monotonic()
                self._forward(partial(self._to_hub, identity, frames))
        finally:
            sweeper.cancel()
            for identity in list(self._backs):
                self._drop(identity)
            self._front.close(linger=0)
            self._context.destroy(linger=0)

    async def _sweep(self) -> None:
        """Connections of workers that are gone, or to a hub that has moved, are closed."""
        while True:
            await asyncio.sleep(0.2)
            address, now = self._target(), time.monotonic()
            moved = address != self._address
            self._address = address
            silent = [identity for identity, seen_s in self._seen_s.items() if now - seen_s > IDLE_S]
            for identity in {*silent, *(self._backs if moved else ())}:
                self._drop(identity)

    def _forward(self, act: Callable[[], None]) -> None:
        for delay_s in self._mischief.fate(time.monotonic()):
            if delay_s <= 0:
                act()
            elif self._num_late < MAX_LATE:
                self._num_late += 1
                asyncio.get_running_loop().call_later(delay_s, self._late, act)
            else:
                self.num_dropped += 1

    def _late(self, act: Callable[[], None]) -> None:
        self._num_late -= 1
        act()

    def _to_hub(self, identity: bytes, frames: list[bytes]) -> None:
        back = self._backs.get(identity) or self._connect(identity)
        if back is None:
            self.num_dropped += 1
            return
        self._send(back, frames)

    def _connect(self, identity: bytes) -> zmq.asyncio.Socket | None:
        self._address = self._target()
        if self._address is None or self._context.closed:
            return None
        back = self._context.socket(zmq.DEALER)
        _common(back)
        back.setsockopt(zmq.ROUTING_ID, identity)
        back.connect(self._address)
        self._backs[identity] = back
        self._readers[identity] = asyncio.create_task(self._read(identity, back))
        return back

    async def _read(self, identity: bytes, back: zmq.asyncio.Socket) -> None:
        while True:
            frames = await back.recv_multipart()
            self._forward(partial(self._send, self._front, [identity, *frames]))

    def _send(self, socket: zmq.asyncio.Socket, frames: list[bytes]) -> None:
        """Never waits: what cannot leave at once is lost, as it may be on any wire."""
        if socket.closed:
            self.num_dropped += 1
            return
        future = cast("asyncio.Future[object]", socket.send_multipart(frames, flags=zmq.NOBLOCK))
        if future.done() and future.exception() is not None:
            self.num_dropped += 1

    def _drop(self, identity: bytes) -> None:
        self._seen_s.pop(identity, None)
        back = self._backs.pop(identity, None)
        if back is not None:
            self._readers.pop(identity).cancel()
            back.close(linger=0)


def _common(socket: zmq.asyncio.Socket) -> None:
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.SNDHWM, QUEUE)
    socket.setsockopt(zmq.RCVHWM, QUEUE)
