"""The hub's socket, spoken to by bare sockets."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
import zmq
import zmq.asyncio

from rlsp_async.errors import ConfigError, MachineError
from rlsp_async.messages import Ack, Bye, Done, Hello, Ping, Pong, Refuse, StepReport
from rlsp_async.wire.codec import decode_from_hub, encode
from rlsp_async.wire.router import Router
from tests.wire.hub import LIMITS
from tests.wire.rings import dealer

HELLO = encode(Hello(run="r", role="sampler", worker="s", credit=1))
PING = encode(Ping())


@contextlib.asynccontextmanager
async def bound(**more) -> AsyncIterator[tuple[Router, zmq.asyncio.Socket]]:
    """A router and a bare DEALER that is connected to it."""
    context = zmq.asyncio.Context()
    async with Router(LIMITS, **more) as router:
        socket = context.socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(await router.bind("tcp://127.0.0.1:0"))
        try:
            yield router, socket
        finally:
            socket.close()
            context.term()


async def heard(router: Router, num: int) -> list:
    """The next `num` messages, without their peers."""
    messages: list = []
    async with asyncio.timeout(5):
        while len(messages) < num:
            messages += [message for _, message in await router.receive()]
    return messages


async def test_port_zero_becomes_a_real_one_and_a_taken_port_is_one_clear_sentence():
    async with Router(LIMITS) as router:
        address = await router.bind("tcp://127.0.0.1:0")
        assert int(address.rpartition(":")[2]) > 0
        with pytest.raises(MachineError, match=r"is taken by another process: stop it, or set replay.address"):
            await Router(LIMITS).bind(address)
    async with Router(LIMITS) as again:
        assert await again.bind(address) == address


@pytest.mark.parametrize("address", ["tcp://127.0.0.1", "ipc:///no/such/directory/x"])
async def test_an_address_that_cannot_be_bound_is_one_clear_sentence(address):
    with pytest.raises(MachineError, match=r"replay\.address"):
        await Router(LIMITS).bind(address)


async def test_frames_that_are_not_of_the_protocol_are_counted_and_the_next_one_is_heard():
    async with bound() as (router, socket):
        await socket.send(HELLO)
        for frames in (
            [b""],
            [b"\xc1"],
            [b"{}"],
            [b"a", b"b"],
            [encode(Ack(lease=1))],
            [HELLO[:-1]],
            [b"\x91" * 5000],
            [PING, PING],
            [b"", PING],
        ):
            await socket.send_multipart(frames)
        await socket.send(PING)
        assert await heard(router, 2) == [Hello(run="r", role="sampler", worker="s", credit=1), Ping()]
        assert router.counts.malformed == 9


async def test_a_stranger_is_asked_for_its_hello_and_heard_after_it():
    async with bound() as (router, socket):
        for frame in (encode(Bye()), PING, HELLO, PING):
            await socket.send(frame)
        assert await heard(router, 2) == [Hello(run="r", role="sampler", worker="s", credit=1), Ping()]
        assert router.counts.strangers == 2
        pongs = [decode_from_hub(await socket.recv()) for _ in range(3)]
        assert pongs == [Pong(known=False), Pong(known=False), Pong(known=True)]
        await socket.send(encode(Bye()))
        assert await heard(router, 1) == [Bye()]
        assert decode_from_hub(await socket.recv()) == Pong(known=False)


async def test_one_await_takes_what_has_arrived_up_to_the_drain():
    async with bound(drain=4) as (router, socket):
        for frame in (HELLO, *[PING] * 9):
            await socket.send(frame)
        await heard(router, 1)
        await asyncio.sleep(0.1)
        assert len(await router.receive()) == 4


async def test_many_small_messages_both_ways_and_none_is_overlooked():
    async with bound() as (router, socket):
        await socket.send(HELLO)
        await heard(router, 1)

        async def chatter() -> None:
            for num in range(2000):
                await socket.send(PING)
                if num % 7 == 0:
                    await asyncio.sleep(0)

        async def answers() -> int:
            return len([await socket.recv() for _ in range(2000)])

        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            group.create_task(chatter())
            num_pongs = group.create_task(answers())
            messages = group.create_task(heard(router, 2000))
        assert (num_pongs.result(), len(messages.result()), router.counts.undelivered) == (2000, 2000, 0)


async def test_sending_never_waits_a_gone_peer_and_a_full_one_are_counted():
    async with bound() as (router, socket):
        assert router.send(b"nobody", Ack(lease=1)) is False
        await socket.send(HELLO)
        [(peer, _)] = await router.receive()
        assert router.send(peer, Ack(lease=1)) is True
        status = Refuse(reason="x" * 100_000)
        sent = [router.send(peer, status) for _ in range(4000)]  # the peer reads nothing
        assert not all(sent)
        assert router.counts.undelivered == 1 + sent.count(False)


async def test_a_message_above_the_limit_is_refused_at_the_sender():
    async with bound() as (router, _):
        with pytest.raises(ConfigError, match=r"Refuse message of 0.30 MB is above replay.max_message_mb = 0.2"):
            router.send(b"any", Refuse(reason="x" * 300_000))


async def test_a_flood_is_dropped_and_counted_and_the_neighbour_is_answered_meanwhile():
    async with bound() as (router, socket):
        serving = asyncio.create_task(_forever(router))
        with dealer(router.address) as neighbour:
            await neighbour.send(HELLO)
            await socket.send(HELLO)
            for num in range(30_000):
                await socket.send(PING)
                if num % 500 == 0:
                    await neighbour.send(PING)
                    assert decode_from_hub(await asyncio.wait_for(neighbour.recv(), 5)) == Pong(known=True)
            async with asyncio.timeout(5):
                while router.counts.flooded < 1000:
                    await asyncio.sleep(0.02)
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        assert router.counts.malformed == router.counts.wrong_role == router.counts.strangers == 0


async def test_who_sends_garbage_without_a_pause_does_not_keep_the_loop_waiting():
    turns = 0

    async def tick() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async with bound(drain=1) as (router, socket):
        for _ in range(100):
            await socket.send(b"\xc1")
        await asyncio.sleep(0.2)
        ticker = asyncio.create_task(tick())
        for _ in range(100):
            await router.receive()
        ticker.cancel()
        assert router.counts.malformed == 100
        assert turns >= 50


async def test_what_was_refused_is_a_figure_of_the_run():
    async with bound() as (router, socket):
        assert router.refusals() == {}
        for frame in (PING, HELLO, encode(Done(lease=1, steps=[StepReport(step=1)])), b"x", PING):
            await socket.send(frame)
        await heard(router, 2)
        assert router.refusals() == {"refused.strangers": 1.0, "refused.wrong_role": 1.0, "refused.malformed": 1.0}


async def _forever(router: Router) -> None:
    while True:
        await router.receive()
