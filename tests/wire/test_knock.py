"""Before a worker loads anything: is a hub there, does its run go on, and if no hub answers, what stands between."""

import asyncio

import pytest

from rlsp_async.errors import MachineError
from rlsp_async.wire.keyring import HubKeys, Keys, create_keyring, read_hub_keys, read_worker_keys
from rlsp_async.wire.knock import Knock
from rlsp_async.wire.router import Router
from rlsp_async.wire.sockets import ConnectionLimits
from tests.wire.hub import link_to

LIMITS = ConnectionLimits(heartbeat_s=0.05, timeout_s=5.0)


async def serving(router: Router) -> None:
    while True:
        assert await router.receive() == [], "the hub itself does not see the question"


async def asked(router: Router | None, address: str, keys: Keys | None = None, give_up_s: float = 20.0) -> str:
    task = asyncio.create_task(serving(router)) if router else None
    try:
        return await Knock("sampler-0", lambda: address, LIMITS, keys, give_up_s).ask()
    finally:
        if task:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_a_hub_says_whether_its_run_goes_on() -> None:
    async with Router(LIMITS) as router:
        address = await router.bind("tcp://127.0.0.1:0")
        assert await asked(router, address) == ""
        router.run_over("the run is complete")
        assert await asked(router, address) == "the run is complete"
        assert router.refusals() == {}


async def test_a_hub_that_comes_late_is_waited_for() -> None:
    router = Router(LIMITS)
    knock = Knock("sampler-0", lambda: router.address or None, LIMITS)
    asking = asyncio.create_task(knock.ask())
    await asyncio.sleep(0)
    assert not knock.is_answered
    async with router:
        await router.bind("tcp://127.0.0.1:0")
        task = asyncio.create_task(serving(router))
        assert await asking == ""
        task.cancel()


@pytest.fixture(scope="module")
def rings(tmp_path_factory: pytest.TempPathFactory) -> tuple[HubKeys, Keys, Keys]:
    """The keys of a hub, of its sampler, and of the sampler of another hub."""
    home = tmp_path_factory.mktemp("keys")
    for name in ("mine", "other"):
        create_keyring(home / name, ["sampler"])
    hub = read_hub_keys(str(home / "mine"))
    mine, other = (read_worker_keys(str(home / name), "sampler", "sampler-0") for name in ("mine", "other"))
    assert hub and mine and other
    return hub, mine, other


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("unlisted", "the hub there refuses this worker's key {key}: it is not on its list, or was revoked"),
        ("wrong hub.public", "hub.public is not the key of the hub that listens there, or that is no hub"),
        ("no key", "the hub there asks for a key: set replay.keys"),
        ("hub without keys", "what listens there uses no keys: it is no hub, or one that was started without"),
        ("nobody", "nothing listens there"),
        ("silent", "a hub is reached there and does not answer yet"),
    ],
)
async def test_what_stands_between_a_worker_and_the_hub_is_named(
    rings: tuple[HubKeys, Keys, Keys], case: str, words: str
) -> None:
    hub, mine, other = rings
    keys = {
        "unlisted": Keys(public=other.public, secret=other.secret, server=mine.server),
        "wrong hub.public": Keys(public=mine.public, secret=mine.secret, server=other.server),
        "no key": None,
    }.get(case, mine)
    async with Router(LIMITS, None if case == "hub without keys" else hub) as router:
        address = await router.bind("tcp://127.0.0.1:0")
        if case == "nobody":
            router.close()
        expected = words.format(key=keys.public.decode() if keys else "")
        serves = router if case not in ("nobody", "silent") else None
        with pytest.raises(MachineError) as caught:
            await asked(serves, address, keys, give_up_s=1.5)
        assert f"({expected}" in str(caught.value)
        if case == "nobody":
            with pytest.raises(MachineError, match=r"nothing listens there"):
                await link_to(address, give_up_s=0.6).run()
