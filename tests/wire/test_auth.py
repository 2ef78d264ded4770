"""Who may listen, and who is let in: real sockets, real keys."""

import asyncio
import os

import pytest
import zmq
import zmq.asyncio
from zmq.auth.asyncio import AsyncioAuthenticator

from rlsp_async.errors import MachineError
from rlsp_async.messages import Hello, Ping, Refuse
from rlsp_async.wire import auth
from rlsp_async.wire.auth import ZAP_DOMAIN, AllowList, Authenticator, guard_dealer, guard_router, is_loopback
from rlsp_async.wire.codec import decode_from_hub, encode
from rlsp_async.wire.gate import RefusalCounts
from rlsp_async.wire.keyring import Keys, add_worker_key, revoke_key
from rlsp_async.wire.router import Router
from rlsp_async.wire.session import Session
from tests.wire.hub import LIMITS, link_to
from tests.wire.rings import dealer, guarded, heard, of, ring, silence, the_hubs

HELLO = encode(Hello(run="r", role="sampler", worker="s", credit=1))
PING = encode(Ping())


def hello(role: str, worker: str) -> bytes:
    return encode(Hello(run="r", role=role, worker=worker, credit=1))


# --- who may listen ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "inside"),
    [
        ("tcp://127.0.0.1:0", True),
        ("tcp://localhost:5700", True),
        ("tcp://[::1]:5700", True),
        ("ipc:///tmp/x", True),
        ("tcp://0.0.0.0:5700", False),
        ("tcp://*:5700", False),
        ("tcp://10.0.0.3:5700", False),
        ("tcp://eth0:5700", False),
        ("tcp://127.0.0.1.example.org:1", False),
        ("udp://127.0.0.1:1", False),
        ("", False),
    ],
)
def test_which_addresses_only_this_machine_reaches(address, inside):
    assert is_loopback(address) is inside


@pytest.mark.parametrize("address", ["tcp://0.0.0.0:0", "tcp://*:0"])
async def test_without_keys_a_hub_listens_to_this_machine_only_and_says_how_to_make_keys(address):
    router = Router(LIMITS)
    with pytest.raises(MachineError, match=r"without keys the hub binds to this machine only.*`rlsp keys new keys`"):
        await router.bind(address)
    router.close()


async def test_with_keys_a_hub_listens_to_every_machine(tmp_path):
    async with Router(LIMITS, ring(tmp_path / "k")) as router:
        port = (await router.bind("tcp://0.0.0.0:0")).rpartition(":")[2]
        with dealer(f"tcp://127.0.0.1:{port}", of(tmp_path / "k", "sampler")) as socket:
            await socket.send(HELLO)
            assert len(await heard(router)) == 1


async def test_a_worker_with_keys_needs_the_hubs_key_and_no_secret_is_printed():
    public, secret = zmq.curve_keypair()
    keys = Keys(public=public, secret=secret)
    with pytest.raises(MachineError, match="the hub's public key is missing"):
        Session("tcp://127.0.0.1:9", "x", 8, LIMITS, keys)
    assert secret.decode() not in repr(keys) + str(keys)


# --- the two traps of CURVE ----------------------------------------------------------------------------------------


async def lets_in(authenticator, keys: Keys, guard=guard_router) -> bool:
    """Whether a bare CURVE server hears a client of these keys."""
    context = zmq.asyncio.Context()
    public, secret = zmq.curve_keypair()
    server, client = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    started = authenticator(context)
    try:
        guard(server, Keys(public=public, secret=secret))
        guard_dealer(client, Keys(public=keys.public, secret=keys.secret, server=public))
        client.connect(f"tcp://127.0.0.1:{server.bind_to_random_port('tcp://127.0.0.1')}")
        await client.send(b"x")
        return bool(await server.poll(500))
    finally:
        if started:
            started.stop()
        context.destroy(linger=0)


def stranger() -> Keys:
    public, secret = zmq.curve_keypair()
    return Keys(public=public, secret=secret)


async def test_trap_1_curve_without_an_authenticator_lets_every_key_in_unless_the_domain_is_enforced():
    def careless(socket: zmq.Socket, keys: Keys) -> None:
        socket.curve_server, socket.curve_publickey, socket.curve_secretkey = True, keys.public, keys.secret

    assert await lets_in(lambda context: None, stranger(), careless) is True
    assert await lets_in(lambda context: None, stranger(), guard_router) is False


@pytest.mark.parametrize(("domain", "let_in"), [("*", False), (ZAP_DOMAIN, True)])
async def test_trap_2_a_starred_domain_refuses_everybody_where_the_socket_has_one(domain, let_in):
    """pyzmq's own authenticator, one reason why the doorman is ours."""

    class Everybody:
        def callback(self, domain: str, key: bytes) -> bool:
            return True

    def start(context):
        authenticator = AsyncioAuthenticator(context)
        authenticator.configure_curve_callback(domain=domain, credentials_provider=Everybody())
        authenticator.start()
        return authenticator

    assert await lets_in(start, stranger()) is let_in


async def test_the_routers_own_authenticator_runs_and_when_it_is_gone_nobody_gets_in(tmp_path):
    ring(tmp_path / "k")
    keys = of(tmp_path / "k", "sampler")
    async with guarded(tmp_path / "k") as (router, address):
        with dealer(address, keys) as socket:
            await socket.send(HELLO)
            assert len(await heard(router)) == 1
        router.authenticator.close()
        with dealer(address, keys) as socket:
            await socket.send(HELLO)
            assert await silence(router)


async def test_an_authenticator_that_fell_is_an_error_and_not_a_closed_door(tmp_path, monkeypatch):
    def fall(self, request):
        raise RuntimeError("the authenticator fell")

    monkeypatch.setattr(Authenticator, "answer", fall)
    ring(tmp_path / "k")
    async with guarded(tmp_path / "k") as (router, address):
        with dealer(address, of(tmp_path / "k", "sampler")) as socket:
            await socket.send(HELLO)
            await asyncio.sleep(0.3)
            with pytest.raises(RuntimeError, match="the authenticator fell"):
                await router.receive()


def test_the_authenticator_answers_its_own_domain_and_mechanism_only(tmp_path):
    keys = ring(tmp_path / "k")
    counts = RefusalCounts()
    authenticator = Authenticator(None, AllowList(keys.allowed), counts)
    raw = zmq.utils.z85.decode(of(tmp_path / "k", "sampler").public)
    good = [b"1.0", b"7", b"rlsp", b"10.0.0.1", b"", b"CURVE", raw]
    assert authenticator.answer(good) == [b"1.0", b"7", b"200", b"OK", of(tmp_path / "k", "sampler").public, b""]
    for wrong in (
        [],
        [b"1.0"],
        [*good[:2], b"", *good[3:]],
        [*good[:2], b"*", *good[3:]],
        [*good[:5], b"NULL"],
        [*good[:5], b"PLAIN", b"u", b"p"],
        [*good[:6], b"short"],
        [*good[:6], bytes(32)],
        [b"2.0", *good[1:]],
    ):
        assert authenticator.answer(wrong)[2] == b"400", wrong
    assert counts.refused_keys == 9


# --- who is let in -------------------------------------------------------------------------------------------------


async def test_no_curve_an_unlisted_key_and_a_wrong_server_key_are_heard_by_nobody(tmp_path):
    ring(tmp_path / "k")
    ring(tmp_path / "other")
    unlisted, server = stranger(), of(tmp_path / "k", "sampler").server
    async with guarded(tmp_path / "k") as (router, address):
        for keys in (
            None,
            Keys(public=unlisted.public, secret=unlisted.secret, server=server),
            of(tmp_path / "other", "sampler"),
        ):
            with dealer(address, keys) as socket:
                await socket.send(HELLO)
                assert await silence(router, 0.3)
        assert router.counts.refused_keys == 1, "the other two never come as far as the authenticator"
        with dealer(address, of(tmp_path / "k", "sampler")) as socket:
            await socket.send(HELLO)
            assert len(await heard(router)) == 1


@pytest.mark.parametrize("which", ["no keys", "unlisted", "wrong server key", "hub without keys"])
async def test_a_refused_worker_ends_after_its_patience_with_a_sentence_that_names_keys(tmp_path, which):
    ring(tmp_path / "k")
    ring(tmp_path / "other")
    lost, server = stranger(), of(tmp_path / "k", "sampler").server
    keys = {
        "no keys": None,
        "unlisted": Keys(public=lost.public, secret=lost.secret, server=server),
        "wrong server key": of(tmp_path / "other", "sampler"),
        "hub without keys": of(tmp_path / "k", "sampler"),
    }
    async with Router(LIMITS, None if which == "hub without keys" else the_hubs(tmp_path / "k")) as router:
        link = link_to(await router.bind("tcp://127.0.0.1:0"), give_up_s=1.0, keys=keys[which])
        listening = asyncio.create_task(router.receive())
        with pytest.raises(MachineError, match=r"no replay hub has answered .* do its keys let this worker in"):
            await asyncio.wait_for(link.run(), 5)
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


async def test_a_recorded_conversation_played_again_is_heard_by_nobody(tmp_path):
    """Every byte that a client sent, recorded on the way and sent once more on a connection of its own."""
    ring(tmp_path / "k")
    async with guarded(tmp_path / "k") as (router, address):
        port, recorded = int(address.rpartition(":")[2]), bytearray()

        async def relay(reader, writer):
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", port)
            back = asyncio.create_task(copy(there_reader, writer, bytearray()))
            await copy(reader, there_writer, recorded)
            await back

        async def copy(reader, writer, record):
            while piece := await reader.read(65536):
                record += piece
                writer.write(piece)
            writer.close()

        server = await asyncio.start_server(relay, "127.0.0.1", 0)
        with dealer(f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}", of(tmp_path / "k", "sampler")) as socket:
            await socket.send(HELLO)
            await socket.send(PING)
            assert len(await heard(router, 2)) == 2
        server.close()
        assert len(recorded) > 400 and b"sampler" not in recorded, "it was encrypted"
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(recorded)
        await writer.drain()
        assert await silence(router)
        writer.close()
        await writer.wait_closed()
        async with asyncio.timeout(5):
            while await reader.read(65536):  # the hub's half of the handshake
                pass


# --- what a key may be used for ------------------------------------------------------------------------------------


async def test_a_hello_in_another_role_or_another_workers_name_is_refused_with_its_reason(tmp_path):
    ring(tmp_path / "k")
    add_worker_key(tmp_path / "k", "sampler-9", "sampler")
    async with guarded(tmp_path / "k") as (router, address):
        for role, worker, said, reason in (
            ("verifier", "v", "learner", "its key 'verifier' is for the role verifier, not learner"),
            ("sampler", "sampler-9", "sampler", "its key is for the worker 'sampler-9', not 'sampler-8'"),
        ):
            with dealer(address, of(tmp_path / "k", role, worker)) as socket:
                await socket.send(hello(said, "sampler-8"))
                await socket.send(PING)
                assert await silence(router, 0.3)
                assert decode_from_hub(await socket.recv()) == Refuse(reason=reason)
        assert (router.counts.wrong_role, router.counts.strangers) == (2, 2)
        with dealer(address, of(tmp_path / "k", "sampler", "sampler-9")) as socket:
            await socket.send(hello("sampler", "sampler-9"))
            assert [message.worker for message in await heard(router)] == ["sampler-9"]


async def test_a_routing_id_belongs_to_the_key_that_used_it_first(tmp_path):
    ring(tmp_path / "k")
    async with guarded(tmp_path / "k") as (router, address):
        with dealer(address, of(tmp_path / "k", "sampler"), b"sampler-0/1/1") as socket:
            await socket.send(HELLO)
            assert len(await heard(router)) == 1
        with dealer(address, of(tmp_path / "k", "verifier"), b"sampler-0/1/1") as socket:
            await asyncio.sleep(0.2)  # the first connection is gone
            await socket.send(hello("verifier", "v"))
            await socket.send(PING)
            assert await silence(router)
            assert router.counts.refused_keys == 2
        with dealer(address, of(tmp_path / "k", "sampler"), b"sampler-0/1/1") as socket:
            await asyncio.sleep(0.2)
            await socket.send(HELLO)
            assert len(await heard(router)) == 1


async def test_a_living_connection_is_not_taken_over_by_its_routing_id(tmp_path):
    ring(tmp_path / "k")
    keys = of(tmp_path / "k", "sampler")
    async with guarded(tmp_path / "k") as (router, address):
        with dealer(address, keys, b"one") as first:
            await first.send(HELLO)
            [(peer, _)] = await router.receive()
            with dealer(address, keys, b"one") as second:
                await second.send(HELLO)
                await asyncio.sleep(0.2)
                assert router.send(peer, Refuse(reason="to the first"))
                assert decode_from_hub(await asyncio.wait_for(first.recv(), 5)) == Refuse(reason="to the first")
                assert not await second.poll(100)


def test_a_routing_id_cannot_be_guessed():
    ids = []
    for _ in range(2):
        session = Session("tcp://127.0.0.1:9", "sampler-0/1/1", 8, LIMITS)
        ids.append(session.routing_id)
        session.close()
    assert ids[0] != ids[1] and all(one.startswith(b"sampler-0/1/1/") and len(one) == 30 for one in ids)


async def test_a_revoked_key_is_heard_no_more_nor_spoken_to_although_it_is_connected(tmp_path, monkeypatch):
    monkeypatch.setattr(auth, "RELOAD_S", 0.1)
    ring(tmp_path / "k")
    add_worker_key(tmp_path / "k", "sampler-9", "sampler")
    async with guarded(tmp_path / "k") as (router, address):
        with (
            dealer(address, of(tmp_path / "k", "sampler", "sampler-9")) as bad,
            dealer(address, of(tmp_path / "k", "verifier")) as good,
        ):
            await bad.send(hello("sampler", "sampler-9"))
            [(peer, _)] = await router.receive()
            assert router.send(peer, Refuse(reason="before"))
            assert await bad.poll(2000)
            secret = of(tmp_path / "k", "sampler", "sampler-9")
            revoke_key(tmp_path / "k", "sampler-9")
            await asyncio.sleep(0.15)
            await bad.send(PING)
            await good.send(hello("verifier", "v"))
            assert [message.worker for message in await heard(router)] == ["v"]
            assert await silence(router, 0.2)
            assert router.send(peer, Refuse(reason="after")) is False
            assert router.counts.refused_keys == 1 and router.counts.undelivered == 1
        with dealer(address, secret) as again:
            await again.send(hello("sampler", "sampler-9"))
            assert await silence(router, 0.3)
        assert router.refusals() == {"refused.refused_keys": 2.0, "refused.undelivered": 1.0}


async def test_a_key_that_is_added_while_the_hub_runs_is_let_in(tmp_path, monkeypatch):
    monkeypatch.setattr(auth, "RELOAD_S", 0.05)
    ring(tmp_path / "k")
    async with guarded(tmp_path / "k") as (router, address):
        add_worker_key(tmp_path / "k", "sampler-9", "sampler")
        await asyncio.sleep(0.1)
        with dealer(address, of(tmp_path / "k", "sampler", "sampler-9")) as socket:
            await socket.send(hello("sampler", "sampler-9"))
            assert len(await heard(router)) == 1


def test_the_list_is_looked_at_once_a_second_and_a_damaged_one_leaves_the_former(tmp_path):
    keys, now = ring(tmp_path / "k"), [0.0]
    allowed = AllowList(keys.allowed, clock=lambda: now[0])
    sampler = of(tmp_path / "k", "sampler").public.decode()
    keys.allowed.write_text("{")
    now[0] = 5.0
    assert allowed.find(sampler).role == "sampler"
    os.unlink(keys.allowed)
    now[0] = 10.0
    assert allowed.find(sampler).role == "sampler"
    keys.allowed.write_text("{}")
    keys.allowed.chmod(0o644)
    now[0] = 10.9
    assert allowed.find(sampler).role == "sampler"
    now[0] = 11.0
    assert allowed.find(sampler) is None
