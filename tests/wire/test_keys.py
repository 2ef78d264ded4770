"""Who may listen, and the seam for CURVE."""

import asyncio

import pytest
import zmq

from rlsp_async.errors import MachineError
from rlsp_async.messages import Hello
from rlsp_async.wire.codec import encode
from rlsp_async.wire.keys import Keys, is_loopback
from rlsp_async.wire.router import Router
from rlsp_async.wire.session import Session
from tests.wire.hub import LIMITS

HELLO = encode(Hello(run="r", role="sampler", worker="s", credit=1))


@pytest.mark.parametrize(("address", "inside"), [
    ("tcp://127.0.0.1:0", True), ("tcp://localhost:5700", True), ("tcp://[::1]:5700", True), ("ipc:///tmp/x", True),
    ("tcp://0.0.0.0:5700", False), ("tcp://*:5700", False), ("tcp://10.0.0.3:5700", False), ("tcp://eth0:5700", False),
    ("tcp://127.0.0.1.example.org:1", False), ("udp://127.0.0.1:1", False), ("", False)])
def test_which_addresses_only_this_machine_reaches(address, inside):
    assert is_loopback(address) is inside


@pytest.mark.parametrize("address", ["tcp://0.0.0.0:0", "tcp://*:0"])
async def test_without_keys_a_hub_listens_to_this_machine_only(address):
    router = Router(LIMITS)
    with pytest.raises(MachineError, match="without keys the hub binds to this machine only"):
        await router.bind(address)
    router.close()


async def test_with_keys_the_socket_speaks_curve_and_hears_nobody_without():
    hub_public, hub_secret = zmq.curve_keypair()
    public, secret = zmq.curve_keypair()
    async with Router(LIMITS, Keys(public=hub_public, secret=hub_secret)) as router:
        address = await router.bind("tcp://127.0.0.1:0")
        plain = Session(address, "plain", 8, LIMITS)
        guarded = Session(address, "guarded", 8, LIMITS, Keys(public=public, secret=secret, server=hub_public))
        plain.post(HELLO)
        guarded.post(HELLO)
        writers = [asyncio.create_task(session.write()) for session in (plain, guarded)]
        heard = await asyncio.wait_for(router.receive(), 5)
        assert [peer for peer, _ in heard] == [b"guarded"]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(router.receive(), 0.3)
        for writer in writers:
            writer.cancel()
        await asyncio.gather(*writers, return_exceptions=True)
        plain.close()
        guarded.close()


async def test_a_worker_with_keys_needs_the_hubs_key_and_no_secret_is_printed():
    public, secret = zmq.curve_keypair()
    keys = Keys(public=public, secret=secret)
    with pytest.raises(MachineError, match="the hub's public key is missing"):
        Session("tcp://127.0.0.1:9", "x", 8, LIMITS, keys)
    assert secret.decode() not in repr(keys)
