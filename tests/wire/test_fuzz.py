"""More than 100,000 damaged messages at each socket: nothing falls, nothing grows, the honest peer is served."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import zmq

from rlsp_async.messages import Ack, FromHub, FromWorker, Hello, Ping, Pong
from rlsp_async.wire.codec import decode_from_hub, encode
from rlsp_async.wire.contract import EXAMPLES
from rlsp_async.wire.router import Router
from rlsp_async.wire.session import Session
from tests.wire.hub import LIMITS
from tests.wire.mutate import damaged
from tests.wire.rings import dealer

OF_WORKERS = [encode(message) for message in EXAMPLES.values() if isinstance(message, FromWorker)]
OF_HUB = [encode(message) for message in EXAMPLES.values() if isinstance(message, FromHub)]
HELLOS = [
    encode(Hello(run="r", role=role, worker="w", credit=1)) for role in ("sampler", "verifier", "learner", "observer")
]
CONNECTIONS, EACH = 20, 5500
PATIENT = msgspec.structs.replace(LIMITS, heartbeat_s=5.0, timeout_s=30.0)
"""A connection whose queue is full shows ZeroMQ no heartbeat; on a busy machine that lasts longer than LIMITS allow."""
MAX_GROWTH_BYTES = 64_000_000
SLOWEST_PONG_S = 5.0


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def in_thread(act: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    return thread


def attack(address: str, seeds: range, until: threading.Event) -> None:
    """Each seed a connection with a routing id of its own: a Hello, then damaged messages. They stay connected: what a
    socket that closes has sent may be lost with it, and every message is counted here."""
    with zmq.Context() as context, contextlib.ExitStack() as sockets:
        for seed in seeds:
            rng = random.Random(seed)
            socket = sockets.enter_context(context.socket(zmq.DEALER))
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.SNDTIMEO, 20_000)
            socket.setsockopt(zmq.ROUTING_ID, b"\xff" + rng.randbytes(rng.choice([3, 30, 254])))
            socket.connect(address)
            socket.send(rng.choice(HELLOS))
            for frames in itertools.islice(damaged(4 * OF_WORKERS + OF_HUB, seed), EACH):
                socket.send_multipart(frames)
        until.wait(60)


@pytest.mark.timeout(180)
async def test_the_router_under_damaged_messages():
    total = CONNECTIONS * (EACH + 1)
    async with Router(PATIENT) as router:
        address = await router.bind("tcp://127.0.0.1:0")
        heard: dict[bytes, int] = {}
        honest = 0

        async def serve() -> None:
            nonlocal honest
            while True:
                for peer, message in await router.receive():
                    assert isinstance(message, FromWorker)
                    heard[peer] = heard.get(peer, 0) + 1
                    honest += peer == b"honest"

        serving = asyncio.create_task(serve())
        with dealer(address, identity=b"honest") as socket:
            await socket.send(HELLOS[0])
            before = resident_bytes()
            counted = threading.Event()
            attacker = in_thread(lambda: attack(address, range(CONNECTIONS), counted))
            pings, slowest_s, deadline = 0, 0.0, time.monotonic() + 120

            def outcomes() -> int:
                counts = router.counts
                return (
                    sum(heard.values())
                    - honest
                    + counts.malformed
                    + counts.strangers
                    + counts.wrong_role
                    + counts.too_long
                    + counts.flooded
                )

            while outcomes() < total:
                asked = time.monotonic()
                await socket.send(encode(Ping()))
                assert decode_from_hub(await asyncio.wait_for(socket.recv(), SLOWEST_PONG_S)) == Pong(known=True)
                slowest_s = max(slowest_s, time.monotonic() - asked)
                pings += 1
                assert not serving.done(), serving.exception()
                assert time.monotonic() < deadline and attacker.is_alive(), (
                    f"{outcomes()} of {total} messages have an outcome"
                )
                await asyncio.sleep(0.01)
            grown = resident_bytes() - before
            counted.set()
            attacker.join(5)
            assert outcomes() == total, "every message has exactly one outcome"
            assert honest == pings + 1
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        counts = router.counts
        print(
            f"{total} messages, {counts}, heard {sum(heard.values()) - honest}, honest pings {pings}, "
            f"slowest {slowest_s:.3f} s, resident memory + {grown / 1e6:.1f} MB"
        )
        assert counts.malformed > 50_000 and counts.too_long > 200 and counts.wrong_role > 1000 and not counts.flooded
        assert grown < MAX_GROWTH_BYTES


@pytest.mark.timeout(180)
async def test_the_workers_socket_under_damaged_messages():
    """The hub's side is a bare ROUTER; every hundredth message is an honest Ack with a number."""
    total = 110_000
    context = zmq.Context()
    hub = context.socket(zmq.ROUTER)
    for option, value in ((zmq.ROUTER_MANDATORY, 1), (zmq.SNDTIMEO, 20_000), (zmq.LINGER, 0)):
        hub.setsockopt(option, value)
    session = Session(f"tcp://127.0.0.1:{hub.bind_to_random_port('tcp://127.0.0.1')}", "worker", 64, PATIENT)
    acks: list[int] = []
    num_heard = 0

    def attack() -> None:
        peer, _ = hub.recv_multipart()
        for num, frames in enumerate(itertools.islice(damaged(4 * OF_HUB + OF_WORKERS, 99), total)):
            hub.send_multipart([peer, *([encode(Ack(lease=num))] if num % 100 == 0 else frames)])
        hub.send_multipart([peer, encode(Ack(lease=total))])

    def on_message(message: FromHub) -> None:
        nonlocal num_heard
        num_heard += 1
        if isinstance(message, Ack) and (message.lease == total or message.lease == 100 * len(acks)):
            acks.append(message.lease)

    session.post(HELLOS[0])
    before = resident_bytes()
    reading = asyncio.create_task(session.read(on_message))
    writing = asyncio.create_task(session.write())
    attacker = in_thread(attack)
    async with asyncio.timeout(150):
        while total not in acks:
            assert not reading.done(), reading.exception()
            await asyncio.sleep(0.02)
    attacker.join(5)
    grown = resident_bytes() - before
    for task in (reading, writing):
        task.cancel()
    await asyncio.gather(reading, writing, return_exceptions=True)
    session.close()
    hub.close()
    context.term()
    print(
        f"{total} messages, malformed {session.num_malformed}, heard {num_heard}, resident memory + {grown / 1e6:.1f} MB"
    )
    assert acks == [*range(0, total, 100), total], "every honest message arrived, in order"
    assert session.num_malformed + num_heard == total + 1
    assert session.num_malformed > 50_000
    assert grown < MAX_GROWTH_BYTES


async def test_a_frame_above_the_limit_ends_its_connection_and_no_other():
    async with Router(LIMITS) as router:
        address = await router.bind("tcp://127.0.0.1:0")
        serving = asyncio.create_task(_forever(router))
        with dealer(address) as socket, dealer(address) as giant:
            await giant.send(HELLOS[0])
            await giant.send(bytes(LIMITS.max_message_bytes + 1))
            await socket.send(HELLOS[1])
            await socket.send(encode(Ping()))
            assert decode_from_hub(await asyncio.wait_for(socket.recv(), 5)) == Pong(known=True)
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        assert not msgspec.structs.replace(router.counts, strangers=0).malformed


async def _forever(router: Router) -> None:
    while True:
        await router.receive()
