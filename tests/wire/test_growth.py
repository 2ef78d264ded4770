"""A connection costs a bounded amount of memory, however much is said over it.

ZeroMQ keeps two chunks of 256 messages of 64 bytes for each direction of a connection and uses them round and round: 64
KiB, reached when 512 messages have gone each way. What grows after that is a leak. Counted are the bytes that malloc
has handed out (libzmq and libsodium allocate there) and the blocks of Python's own allocator, not the pages of the
process.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import sys

import zmq
import zmq.asyncio

from rlsp_async.messages import Hello, Ping
from rlsp_async.wire.codec import encode
from rlsp_async.wire.router import Router
from tests.wire.hub import LIMITS

PEERS = 8
WINDOW = 32
FILLS = 640
"""Messages each way after which no chunk is new."""
MORE = 640
LEAK_BYTES = 16
"""A message that leaves this much behind is found."""
BLOCK_BYTES = 32
"""Python's smallest block, with its share of a pool."""


class MallInfo(ctypes.Structure):
    """glibc's `struct mallinfo2`."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in [
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        ]
    ]


def allocated_bytes() -> int:
    """Bytes in use: those of malloc, and Python's blocks."""
    gc.collect()
    mallinfo = ctypes.CDLL(None).mallinfo2
    mallinfo.restype = MallInfo
    info = mallinfo()
    return int(info.uordblks + info.hblkhd) + BLOCK_BYTES * sys.getallocatedblocks()


async def talk(router: Router, sockets: list[zmq.asyncio.Socket], num: int) -> None:
    """Every peer says `num` Pings, and hears as many Pongs."""
    for _ in range(num // WINDOW):
        for socket in sockets:
            for _ in range(WINDOW):
                await socket.send(encode(Ping()))
        await hear(router, WINDOW * len(sockets))
        for socket in sockets:
            for _ in range(WINDOW):
                await socket.recv()


async def hear(router: Router, num: int) -> None:
    while num > 0:
        num -= len(await router.receive())


async def test_what_was_said_leaves_nothing_behind():
    context = zmq.asyncio.Context()
    async with asyncio.timeout(40), Router(LIMITS) as router:
        address = await router.bind("tcp://127.0.0.1:0")
        sockets = [context.socket(zmq.DEALER) for _ in range(PEERS)]
        for i, socket in enumerate(sockets):
            socket.connect(address)
            await socket.send(encode(Hello(run="r", role="sampler", worker=f"s{i}", credit=100)))
        await hear(router, PEERS)
        await talk(router, sockets, FILLS)
        before = allocated_bytes()
        await talk(router, sockets, MORE)
        grown = allocated_bytes() - before
        context.destroy(linger=0)
    assert router.counts.flooded == router.counts.undelivered == 0
    assert grown < LEAK_BYTES * MORE * PEERS, grown


def test_a_leak_of_one_object_a_message_is_seen():
    before, kept = allocated_bytes(), []
    for number in range(MORE * PEERS):
        kept.append(number + 2**40)
    assert allocated_bytes() - before >= LEAK_BYTES * MORE * PEERS
    assert kept
