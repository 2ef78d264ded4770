"""The learner's server of weights and a sampler's side, in one process over gloo on loopback; messages by hand."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from rlsp_async.errors import MachineError, WeightsDelayed, WeightsError
from rlsp_async.messages import Abandon, Invite, Pull, Relayed, StepReport, WeightsRef
from rlsp_async.sampling.engine import Staged
from rlsp_async.sampling.pulling import Puller, check_invitation
from rlsp_async.sampling.scripted import ScriptedEngine
from rlsp_async.weights import kinds
from rlsp_async.weights.file import FileTransport
from rlsp_async.weights.probe import make_probe
from rlsp_async.weights.serve import OfferSettings, WeightsServer, meeting_address, meeting_point, slowed

DEADLINE_S = 3.0


def publish(directory: Path, version: int, num: int = 3000, incarnation: int = 1) -> WeightsRef:
    transport = FileTransport(directory)
    tensors = [("b", torch.arange(num, dtype=torch.float32) * version), ("a", torch.ones(3, 5) / version)]
    snapshot = transport.take(tensors, version, incarnation)
    return transport.publish(snapshot, make_probe((1, 4, 6), [-0.25, -3.5]))


class Line:
    """A server, and any number of samplers whose messages reach it as a hub would relay them."""

    def __init__(self, transport: str = "channel", slow: str = "") -> None:
        self.loop = asyncio.get_running_loop()
        self.pullers: dict[str, Puller] = {}
        self.engines: dict[str, ScriptedEngine] = {}
        self.told: list[Relayed] = []
        self.lost: Callable[[Relayed], bool] = lambda message: False
        settings = OfferSettings(
            learner="learner-0", incarnation=1, transport=transport, deadline_s=DEADLINE_S, host="first"
        )
        self.server = WeightsServer(
            slowed(settings, slow),
            lambda: meeting_point("127.0.0.1", 0, DEADLINE_S),
            lambda message: self.loop.call_soon_threadsafe(self._to_sampler, message),
        )

    async def sampler(self, name: str = "sampler-0") -> Puller:
        engine = self.engines[name] = ScriptedEngine()
        await engine.start()
        puller = self.pullers[name] = Puller(name, engine, "host")

        def send(message: Relayed) -> None:
            self.told.append(message)
            if not self.lost(message):
                self.server.heard(msgspec.structs.replace(message, worker=name))

        puller.connect(send)
        return puller

    def _to_sampler(self, message: Relayed) -> None:
        self.told.append(message)
        if not self.lost(message) and message.worker in self.pullers:
            self.pullers[message.worker].heard(message)

    def heard(self, kind: type) -> list[Any]:
        return [message for message in self.told if isinstance(message, kind)]

    async def until(self, condition: Callable[[], object], bound_s: float = 20.0) -> None:
        async with asyncio.timeout(bound_s):
            while not condition():
                await asyncio.sleep(0.01)

    async def close(self) -> None:
        self.server.close()
        for engine in self.engines.values():
            await engine.close()


@pytest.fixture
async def line() -> Any:
    line = Line()
    yield line
    await line.close()


def tensors(line: Line, source: Any, name: str = "sampler-0") -> dict[str, torch.Tensor]:
    return dict(line.engines[name]._receiver.take(source.ticket))


async def test_versions_come_over_one_channel_that_stays_open(line: Line, tmp_path: Path):
    puller = await line.sampler()
    for version in (1, 2, 3):
        ref = line.server.announce(publish(tmp_path, version))
        assert ref.uri == "channel://learner-0/1?host=first" and ref.also[0].startswith("file://")
        source = await puller.bring(ref)
        assert isinstance(source, Staged) and {entry.name for entry in source.plan} == {"a", "b"}
        arrived = tensors(line, source)
        assert torch.equal(arrived["b"], torch.arange(3000, dtype=torch.float32) * version)
        assert torch.equal(arrived["a"], torch.ones(3, 5) / version)
    assert {invite.channel for invite in line.heard(Invite)} == {"sampler-0.1.1"}
    with pytest.raises(WeightsDelayed, match="nothing has arrived"):
        tensors(line, source)


async def test_each_sampler_has_a_channel_and_one_that_vanishes_costs_nobody_else(line: Line, tmp_path: Path):
    ref = line.server.announce(publish(tmp_path, 1))
    gone = Pull(ticket="sampler-9/1", version=1, made_by=1, worker="sampler-9", kinds=["gloo"])
    line.server.heard(gone)  # it never comes to its channel
    names = [f"sampler-{i}" for i in range(5)]
    pullers = [await line.sampler(name) for name in names]
    sources = await asyncio.gather(*(puller.bring(ref) for puller in pullers))
    assert all(len(tensors(line, source, name)) == 2 for name, source in zip(names, sources, strict=True))
    await line.until(lambda: [a for a in line.heard(Abandon) if a.worker == "sampler-9"])
    assert "found no peer within 3 s" in line.heard(Abandon)[0].reason


async def test_a_lost_pull_and_a_lost_invitation_are_made_again(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("rlsp_async.sampling.pulling.ASK_S", 0.1)
    puller, lost = await line.sampler(), [0, 0]

    def lose(message: Relayed) -> bool:
        lost[isinstance(message, Invite)] += 1
        return lost[isinstance(message, Invite)] == 1

    line.lost = lose
    await puller.bring(line.server.announce(publish(tmp_path, 1)))
    assert {pull.ticket for pull in line.heard(Pull)} == {"sampler-0/1"}
    invites = line.heard(Invite)
    assert len(invites) >= 2 and len({msgspec.msgpack.encode(invite) for invite in invites}) == 1


async def test_a_superseded_version_ends_between_two_buckets_and_the_channel_serves_the_next(tmp_path: Path):
    line = Line(slow="0.2:4096")  # a bucket is a third of the version
    try:
        puller = await line.sampler()
        first = line.server.announce(publish(tmp_path, 1))
        bringing = asyncio.create_task(puller.bring(msgspec.structs.replace(first, also=[])))
        await line.until(lambda: line.heard(Invite))
        second = line.server.announce(publish(tmp_path, 2))
        with pytest.raises(WeightsDelayed, match="version 1: .*superseded"):
            await bringing
        source = await puller.bring(second)
        assert torch.equal(tensors(line, source)["a"], torch.ones(3, 5) / 2)
        assert [invite.channel for invite in line.heard(Invite)] == ["sampler-0.1.1", "sampler-0.1.1"]
    finally:
        await line.close()


async def test_a_sampler_that_dies_is_closed_and_its_next_start_gets_a_new_channel(line: Line, tmp_path: Path):
    ref = line.server.announce(publish(tmp_path, 1))
    await (await line.sampler()).bring(ref)
    await line.engines["sampler-0"].close()  # its process is gone
    line.server.heard(Abandon(ticket="", worker="sampler-0", reason="sampler-0 is gone"))
    await (await line.sampler()).bring(ref)
    assert [invite.channel for invite in line.heard(Invite)] == ["sampler-0.1.1", "sampler-0.1.2"]


async def test_an_error_of_the_channel_is_a_delay_and_the_next_try_opens_another(line: Line, tmp_path: Path):
    puller = await line.sampler()
    ref = msgspec.structs.replace(line.server.announce(publish(tmp_path, 1)), also=[])
    await puller.bring(ref)
    receiver = line.engines["sampler-0"]._receiver
    assert receiver._channel is not None
    receiver._channel.close()  # the connection breaks; the learner does not know yet
    with pytest.raises(WeightsDelayed, match="version 1: channel sampler-0.1.1"):
        await puller.bring(ref)
    await puller.bring(ref)
    assert [invite.channel for invite in line.heard(Invite)][-1] == "sampler-0.1.2"


async def test_what_is_not_there_is_said_and_the_file_is_the_next_way(line: Line, tmp_path: Path):
    puller = await line.sampler()
    ref = line.server.announce(publish(tmp_path / "x", 1))
    newer = line.server.announce(publish(tmp_path / "x", 2))
    assert await puller.bring(ref) == tmp_path / "x" / "v000001-1.safetensors"  # the channel serves version 2 only
    assert line.heard(Abandon)[0].reason == "version 1 of start 1 was asked for, there is version 2"
    (tmp_path / "x" / "v000002-1.safetensors").unlink()
    with pytest.raises(WeightsDelayed, match="version 2: .*cannot be read.*; version 2: .*cannot be read"):
        await puller.bring(newer)
    other = msgspec.structs.replace(newer, digest="sums:" + "0" * 64, also=[])
    publish(tmp_path / "x", 2)
    with pytest.raises(WeightsDelayed, match="offers other weights"):
        await puller.bring(other)


async def test_in_auto_the_file_is_first_and_the_channel_where_it_cannot_be_read(tmp_path: Path):
    line = Line("auto")
    try:
        puller = await line.sampler()
        ref = line.server.announce(publish(tmp_path / "x", 1))
        assert await puller.bring(ref) == tmp_path / "x" / "v000001-1.safetensors"
        assert not line.told
        elsewhere = msgspec.structs.replace(ref, uri=(tmp_path / "y" / "v000001-1.safetensors").as_uri())
        assert isinstance(await puller.bring(elsewhere), Staged)
        unknown = msgspec.structs.replace(ref, uri="s3://bucket/v1", also=["ib://x", ref.uri])
        assert await puller.bring(unknown) == tmp_path / "x" / "v000001-1.safetensors"
        shared = msgspec.structs.replace(ref, uri="file:///dev/shm/rlsp-x/v000001-1.safetensors")
        assert isinstance(await puller.bring(shared), Staged)
        with pytest.raises(WeightsError, match="v000001-1.safetensors lies in the shared memory of another machine"):
            await puller._by(shared.uri, shared)
        with pytest.raises(WeightsError, match="cannot be read"):
            await puller._by(shared.uri, msgspec.structs.replace(shared, also=["channel://learner-0/1?host=host"]))
        with pytest.raises(WeightsError, match="no transport for 's3://bucket/v1'"):
            await puller.bring(msgspec.structs.replace(unknown, also=[]))
        line.server._settings = msgspec.structs.replace(line.server._settings, transport="file")
        report = StepReport(step=1, weights=publish(tmp_path / "x", 3))
        coming: asyncio.Future[StepReport] = line.loop.create_future()
        coming.set_result(report)
        assert await line.server.announced(coming) == report
    finally:
        await line.close()


async def test_a_sampler_that_gives_up_ends_its_transfer(tmp_path: Path):
    line = Line(slow="0.3:4096")
    try:
        puller = await line.sampler()
        bringing = asyncio.create_task(puller.bring(line.server.announce(publish(tmp_path, 1))))
        await line.until(lambda: line.heard(Invite))
        bringing.cancel()
        await asyncio.gather(bringing, return_exceptions=True)
        given_up = "given up by sampler-0: the sampler has no time left for it"
        await line.until(lambda: [a for a in line.heard(Abandon) if a.reason == given_up])
    finally:
        await line.close()


def test_no_thread_of_a_server_outlives_it_for_long(tmp_path: Path):
    async def act() -> None:
        line = Line()
        await (await line.sampler()).bring(line.server.announce(publish(tmp_path, 1)))
        await line.close()

    asyncio.run(act())
    for thread in threading.enumerate():
        if thread.name.startswith(("weights", "gloo")):
            thread.join(5.0)
            assert not thread.is_alive(), thread.name


# --- which kind ------------------------------------------------------------------------------------------------------


PULL = Pull(ticket="s/1", version=1, made_by=1, kinds=["nccl", "gloo"], devices=["GPU-1"], env={"version": "2.29.7"})
BOTH, ENV = ["nccl", "gloo"], {"version": "2.29.7"}


def change(**fields: Any) -> Pull:
    return msgspec.structs.replace(PULL, **fields)


@pytest.mark.parametrize(
    ("pull", "own", "device", "kind", "why"),
    [
        (PULL, BOTH, "GPU-0", "nccl", "both have cards of their own"),
        (PULL, BOTH, "GPU-1", "gloo", "they share a card"),
        (change(devices=["GPU-2", "GPU-2"]), BOTH, "GPU-0", "gloo", "they share a card"),
        (change(devices=[]), BOTH, "GPU-0", "gloo", "the cards are not known"),
        (change(kinds=["gloo"]), BOTH, "GPU-0", "gloo", "no GPU or no NCCL"),
        (change(env={"version": "2.27.3"}), BOTH, "GPU-0", "gloo", "version differs"),
        (change(env=ENV | {"NCCL_CUMEM_ENABLE": "0"}), BOTH, "GPU-0", "gloo", "NCCL_CUMEM_ENABLE differs"),
        (PULL, ["gloo"], "", "gloo", "no GPU or no NCCL"),
        (change(kinds=["quic"]), ["gloo"], "", "file", "there is no common kind"),
    ],
)
def test_the_kind_follows_from_what_both_ends_are(pull: Pull, own: list[str], device: str, kind: str, why: str):
    found, reason = kinds.choose_kind(pull, own, device, ENV)
    assert found == kind and why in reason


async def test_a_sampler_without_a_common_kind_is_sent_to_the_file(line: Line, tmp_path: Path):
    ref = line.server.announce(publish(tmp_path, 1))
    line.server.heard(Pull(ticket="sampler-0/1", version=1, made_by=1, worker="sampler-0", kinds=["quic"]))
    await line.until(lambda: line.heard(Invite))
    assert line.heard(Invite) == [Invite(ticket="sampler-0/1", worker="sampler-0", kind="file")]
    with pytest.raises(WeightsDelayed, match="no channel to this sampler"):
        check_invitation(line.heard(Invite)[0], ref)


def test_channels_meet_where_the_setting_says_or_on_the_way_to_the_hub():
    assert meeting_address("", "tcp://127.0.0.1:5555") == ("127.0.0.1", 0)
    assert meeting_address("10.0.0.5", "tcp://x:1") == ("10.0.0.5", 0)
    assert meeting_address("10.0.0.5:5556", "tcp://x:1") == ("10.0.0.5", 5556)
    assert meeting_address("[::1]:5556", "tcp://x:1") == ("::1", 5556)
    assert meeting_address("[::1]", "tcp://x:1") == ("::1", 0)
    for wrong in ("10.0.0.5:x", "10.0.0.5:70000", ":5556"):
        with pytest.raises(MachineError, match="is not ADDRESS or ADDRESS:PORT"):
            meeting_address(wrong, "tcp://127.0.0.1:5555")


def test_a_test_harness_slows_channels():
    settings = OfferSettings(learner="l", incarnation=1, transport="auto", deadline_s=1.0)
    assert slowed(settings, "") == settings
    assert (slowed(settings, "0.5:4096").pause_s, slowed(settings, "0.5:4096").bucket_bytes) == (0.5, 4096)


def test_a_machine_is_called_by_its_boot_unless_a_test_names_it(monkeypatch: pytest.MonkeyPatch):
    assert len(kinds.host_id()) == 36
    monkeypatch.setenv("RLSP_HOST_ID", "second")
    assert kinds.host_id() == "second"
