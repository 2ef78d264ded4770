"""The proxy between the workers and the hub: forwards whole messages both ways.

It drops, repeats or delays messages as `FaultInjector` decides.

    worker DEALER  <-->  ROUTER [proxy] DEALER, one a connection, same routing id  <-->  ROUTER hub

Plain sockets on the loopback interface; the proxy cannot stand in a run with keys, which encrypt every connection.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import cast

import zmq
import zmq.asyncio

from rlsp_async.chaos.fault_injection import FaultInjector

MAX_LATE = 20_000
"""Largest number of delayed messages; more are dropped and counted."""
IDLE_S = 30.0
"""A connection over which no message came for this time is closed."""
QUEUE = 4096
OVERHEARD = 300
"""Frames of workers that are kept."""


class Proxy:
    """Forwards messages between any number of workers and one hub."""

    def __init__(self, target: Callable[[], str | None], injector: FaultInjector) -> None:
        """Makes a proxy that is not yet bound.

        Args:
            target: returns the hub's present address; None while it is unknown. When the address changes, connections
                to the old one are closed.
            injector: decides what becomes of each message.
        """
        self._target, self._injector = target, injector
        self._context = zmq.asyncio.Context()
        self._front: zmq.asyncio.Socket
        self._backs: dict[bytes, zmq.asyncio.Socket] = {}
        self._heard_s: dict[bytes, float] = {}
        """When each worker was last heard."""
        self._readers: dict[bytes, asyncio.Task[None]] = {}
        self.overheard: deque[bytes] = deque(maxlen=OVERHEARD)
        """The newest frames of workers, for a peer that sends them again."""
        self._address: str | None = None
        self._num_late = 0
        self.num_dropped = 0
        """Messages dropped because there was no hub, no room, or too many delayed messages."""

    def bind(self) -> str:
        """Listens on a free port; returns the address for the workers."""
        self._front = self._context.socket(zmq.ROUTER)
        _common(self._front)
        self._front.setsockopt(zmq.ROUTER_MANDATORY, 1)
        port = self._front.bind_to_random_port("tcp://127.0.0.1")
        return f"tcp://127.0.0.1:{port}"

    @property
    def num_connections(self) -> int:
        """Open connections to the hub: one for each worker that was heard within IDLE_S."""
        return len(self._backs)

    async def run(self) -> None:
        """Forwards until cancelled."""
        sweeper = asyncio.create_task(self._sweep())
        try:
            while True:
                identity, *frames = await self._front.recv_multipart()
                self._heard_s[identity] = time.monotonic()
                self.overheard.append(frames[-1])
                self._forward(partial(self._to_hub, identity, frames))
        finally:
            sweeper.cancel()
            for identity in list(self._backs):
                self._drop(identity)
            self._front.close(linger=0)
            self._context.destroy(linger=0)

    async def _sweep(self) -> None:
        """Closes the connections of workers that are gone, and those to an old address of the hub."""
        while True:
            await asyncio.sleep(0.2)
            address, now = self._target(), time.monotonic()
            moved = address != self._address
            self._address = address
            silent = [identity for identity, heard_s in self._heard_s.items() if now - heard_s > IDLE_S]
            for identity in {*silent, *(self._backs if moved else ())}:
                self._drop(identity)

    def _forward(self, act: Callable[[], None]) -> None:
        for delay_s in self._injector.delays(time.monotonic()):
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
        """Never waits: a message that cannot be sent at once is lost, as on any network."""
        if socket.closed:
            self.num_dropped += 1
            return
        future = cast("asyncio.Future[object]", socket.send_multipart(frames, flags=zmq.NOBLOCK))
        if future.done() and future.exception() is not None:
            self.num_dropped += 1

    def _drop(self, identity: bytes) -> None:
        self._heard_s.pop(identity, None)
        back = self._backs.pop(identity, None)
        if back is not None:
            self._readers.pop(identity).cancel()
            back.close(linger=0)


def _common(socket: zmq.asyncio.Socket) -> None:
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.SNDHWM, QUEUE)
    socket.setsockopt(zmq.RCVHWM, QUEUE)
