"""The relay with real sockets: a worker's DEALER, the proxy, a hub's ROUTER."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import zmq
import zmq.asyncio

from rlsp_async.chaos import proxy as module
from rlsp_async.chaos.fault_injection import FaultInjector
from rlsp_async.chaos.proxy import Proxy

BOUND_S = 5.0


class Net:
    """One proxy, any number of hubs and workers."""

    def __init__(self) -> None:
        self.context = zmq.asyncio.Context()
        self.injector = FaultInjector(3)
        self.hub: str | None = None
        self.proxy = Proxy(lambda: self.hub, self.injector)
        self.address = self.proxy.bind()
        self.running = asyncio.create_task(self.proxy.run())
        self.sockets: list[zmq.asyncio.Socket] = []

    def router(self) -> zmq.asyncio.Socket:
        socket = self.context.socket(zmq.ROUTER)
        self.hub = f"tcp://127.0.0.1:{socket.bind_to_random_port('tcp://127.0.0.1')}"
        self.sockets.append(socket)
        return socket

    def worker(self, name: bytes) -> zmq.asyncio.Socket:
        socket = self.context.socket(zmq.DEALER)
        socket.setsockopt(zmq.ROUTING_ID, name)
        socket.connect(self.address)
        self.sockets.append(socket)
        return socket

    async def close(self) -> None:
        self.running.cancel()
        await asyncio.gather(self.running, return_exceptions=True)
        for socket in self.sockets:
            socket.close(linger=0)
        self.context.destroy(linger=0)


@pytest.fixture
async def net() -> AsyncIterator[Net]:
    net = Net()
    yield net
    await net.close()


async def heard(socket: zmq.asyncio.Socket, within_s: float = BOUND_S) -> list[bytes]:
    async with asyncio.timeout(within_s):
        return await socket.recv_multipart()


async def count(socket: zmq.asyncio.Socket, quiet_s: float = 0.8) -> list[bytes]:
    """Last frames until nothing came for a while."""
    found = []
    try:
        while True:
            found.append((await heard(socket, quiet_s))[-1])
    except TimeoutError:
        return found


async def test_messages_pass_both_ways_in_order_under_the_workers_own_name(net: Net):
    hub, one, two = net.router(), net.worker(b"one"), net.worker(b"two")
    for number in range(200):
        await one.send_multipart([b"v1", b"%d" % number])
    await two.send_multipart([b"v1", b"mine"])
    got: dict[bytes, list[bytes]] = {b"one": [], b"two": []}
    for _ in range(201):
        name, version, body = await heard(hub)
        assert version == b"v1"
        got[name].append(body)
    assert got == {b"one": [b"%d" % number for number in range(200)], b"two": [b"mine"]}
    for number in range(200):
        await hub.send_multipart([b"two", b"%d" % number])
    assert [await heard(two) for _ in range(200)] == [[b"%d" % number] for number in range(200)]


async def test_a_window_strikes_in_both_directions(net: Net):
    hub, worker = net.router(), net.worker(b"w")
    await worker.send(b"hello")
    await heard(hub)
    net.injector.begin("drop", asyncio.get_running_loop().time(), 1e9)
    for _ in range(300):
        await worker.send(b"up")
        await hub.send_multipart([b"w", b"down"])
    up, down = await count(hub), await count(worker)
    assert 230 < len(up) < 295 and 230 < len(down) < 295
    assert 600 - len(up) - len(down) == net.injector.counts["drop"]


async def test_duplicates_arrive_twice_and_late_ones_are_overtaken(net: Net):
    hub, worker = net.router(), net.worker(b"w")
    for kind in ("duplicate", "reorder"):
        net.injector.begin(kind, asyncio.get_running_loop().time(), 1e9)
    for number in range(200):
        await worker.send(b"%d" % number)
    found = [int(body) for body in await count(hub)]
    assert set(found) == set(range(200))
    assert len(found) == 200 + net.injector.counts["duplicate"] > 200
    assert found != sorted(found)


async def test_a_hub_that_comes_back_elsewhere_is_found(net: Net):
    first, worker = net.router(), net.worker(b"w")
    await worker.send(b"a")
    assert (await heard(first))[-1] == b"a"
    first.close(linger=0)
    second = net.router()
    await asyncio.sleep(0.5)  # the proxy looks five times a second
    await worker.send(b"b")
    assert await heard(second) == [b"w", b"b"]
    await second.send_multipart([b"w", b"welcome"])
    assert await heard(worker) == [b"welcome"]


async def test_without_a_hub_messages_are_lost_and_counted(net: Net):
    worker = net.worker(b"w")
    await worker.send(b"a")
    async with asyncio.timeout(BOUND_S):
        while net.proxy.num_dropped == 0:
            await asyncio.sleep(0.01)
    hub = net.router()
    await worker.send(b"b")
    assert await heard(hub) == [b"w", b"b"]


async def test_names_of_workers_that_are_gone_are_forgotten(net: Net, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "IDLE_S", 0.3)
    hub = net.router()
    for number in range(20):
        await net.worker(b"w%d" % number).send(b"hello")
        await heard(hub)
    assert net.proxy.num_connections == 20
    async with asyncio.timeout(BOUND_S):
        while net.proxy.num_connections:
            await asyncio.sleep(0.05)


async def test_late_messages_are_bounded(net: Net, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MAX_LATE", 50)
    hub, worker = net.router(), net.worker(b"w")
    net.injector.begin("slow", asyncio.get_running_loop().time(), 1e9)
    for _ in range(200):
        await worker.send(b"x")
    found = await count(hub, quiet_s=1.5)
    assert 50 <= len(found) < 200
    assert net.proxy.num_dropped == 200 - len(found)
