"""Rings of keys for the tests, and bare sockets that speak with them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import zmq
import zmq.asyncio

from rlsp_async.messages import FromWorker
from rlsp_async.wire.auth import guard_dealer
from rlsp_async.wire.keyring import HubKeys, Keys, create_keyring, read_hub_keys, read_worker_keys
from rlsp_async.wire.router import Router
from rlsp_async.wire.sockets import ConnectionLimits
from tests.wire.hub import LIMITS

ROLES = ["sampler", "verifier", "learner", "observer"]


def ring(directory: Path) -> HubKeys:
    """A new ring with a key for each role; the hub's half of it."""
    create_keyring(directory, ROLES)
    return the_hubs(directory)


def the_hubs(directory: Path) -> HubKeys:
    keys = read_hub_keys(str(directory))
    assert keys is not None
    return keys


def of(directory: Path, role: str, worker: str = "nobody") -> Keys:
    keys = read_worker_keys(str(directory), role, worker)
    assert keys is not None
    return keys


@contextlib.contextmanager
def dealer(address: str, keys: Keys | None = None, identity: bytes = b"") -> Iterator[zmq.asyncio.Socket]:
    """A bare DEALER, connected."""
    context = zmq.asyncio.Context()
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.LINGER, 0)
    if identity:
        socket.setsockopt(zmq.ROUTING_ID, identity)
    if keys is not None:
        guard_dealer(socket, keys)
    socket.connect(address)
    try:
        yield socket
    finally:
        socket.close()
        context.term()


@contextlib.asynccontextmanager
async def guarded(directory: Path, limits: ConnectionLimits = LIMITS) -> AsyncIterator[tuple[Router, str]]:
    """A router with the keys of a ring, and its address."""
    async with Router(limits, the_hubs(directory)) as router:
        yield router, await router.bind("tcp://127.0.0.1:0")


async def heard(router: Router, num: int = 1, bound_s: float = 5.0) -> list[FromWorker]:
    """The next `num` messages. Raises TimeoutError."""
    messages: list[FromWorker] = []
    async with asyncio.timeout(bound_s):
        while len(messages) < num:
            messages += [message for _, message in await router.receive()]
    return messages


async def silence(router: Router, seconds: float = 0.4) -> bool:
    """Whether the router lets nothing through for so long."""
    try:
        await heard(router, bound_s=seconds)
    except TimeoutError:
        return True
    return False
