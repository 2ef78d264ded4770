"""A relay between DEALERs and a ROUTER that loses, repeats, delays and thereby reorders frames in both directions."""

from __future__ import annotations

import asyncio
from random import Random

import zmq
import zmq.asyncio


class Relay:
    """`async with Relay(hub_address, Random(1)) as relay: connect to relay.address`. Counts what it did."""

    def __init__(self, hub: str, random: Random, lost: float, twice: float, late: float, late_s: float) -> None:
        self.hub, self.random = hub, random
        self.lost, self.twice, self.late, self.late_s = lost, twice, late, late_s
        self.num_lost = self.num_twice = self.num_late = 0
        self._context = zmq.asyncio.Context()
        self._front = self._context.socket(zmq.ROUTER)
        self._backs: dict[bytes, zmq.asyncio.Socket] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Relay:
        self._front.linger = 0
        self.address = f"tcp://127.0.0.1:{self._front.bind_to_random_port('tcp://127.0.0.1')}"
        self._spawn(self._forward())
        return self

    async def __aexit__(self, *error: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._context.destroy(linger=0)

    async def _forward(self) -> None:
        while True:
            peer, frame = await self._front.recv_multipart()
            self._carry(self._back(peer), [frame])

    async def _backward(self, peer: bytes, back: zmq.asyncio.Socket) -> None:
        while True:
            [frame] = await back.recv_multipart()
            self._carry(self._front, [peer, frame])

    def _back(self, peer: bytes) -> zmq.asyncio.Socket:
        if peer not in self._backs:
            back = self._backs[peer] = self._context.socket(zmq.DEALER)
            back.linger = 0
            back.setsockopt(zmq.IDENTITY, peer)
            back.connect(self.hub)
            self._spawn(self._backward(peer, back))
        return self._backs[peer]

    def _carry(self, to: zmq.asyncio.Socket, frames: list[bytes]) -> None:
        draw = self.random.random()
        self.num_lost += draw < self.lost
        self.num_twice += self.lost <= draw < self.lost + self.twice
        for _ in range(0 if draw < self.lost else 2 if draw < self.lost + self.twice else 1):
            if self.random.random() < self.late:
                self.num_late += 1
                self._spawn(self._send(to, frames, self.random.random() * self.late_s))
            else:
                to.send_multipart(frames, flags=zmq.NOBLOCK)

    async def _send(self, to: zmq.asyncio.Socket, frames: list[bytes], after_s: float) -> None:
        await asyncio.sleep(after_s)
        await to.send_multipart(frames)

    def _spawn(self, work: object) -> None:
        task = asyncio.ensure_future(work)  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
