"""The shell around the hub: commit before send, files, restart, ends. The router is in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from rlsp_async.columns import pack_floats, pack_ints
from rlsp_async.config import EvaluationConfig, ReplayConfig, StageConfig
from rlsp_async.errors import DataError, DivergedError, MachineError
from rlsp_async.jsonl import read_jsonl
from rlsp_async.messages import (
    Bye,
    Drain,
    Loaded,
    NewWeights,
    Rollout,
    RolloutGroup,
    Sampling,
    Status,
    VerifiedGroup,
    Welcome,
    Work,
)
from rlsp_async.replay.journal import Journal
from rlsp_async.replay.server import ReplayServer
from tests.replay.line import SmallTask, answer, config, hello

PEERS = {b"s": "sampler", b"v": "verifier", b"l": "learner", b"o": "observer"}


class FakeRouter:
    """Plays all the workers, honestly; `on_send` sees each message as it leaves the hub."""

    def __init__(
        self, peers: dict[bytes, str] | None = None, on_send: Callable[[bytes, Any], None] | None = None
    ) -> None:
        self.queue: asyncio.Queue[tuple[bytes, Any]] = asyncio.Queue()
        self.sent: list[tuple[bytes, Any]] = []
        self.versions: dict[bytes, int] = {}
        self.bound: list[str] = []
        self.closed = False
        self._on_send = on_send
        for peer, role in (PEERS if peers is None else peers).items():
            self.queue.put_nowait((peer, hello(role, step=0, credit=4)))

    async def bind(self, address: str) -> str:
        self.bound.append(address)
        return "tcp://127.0.0.1:4711" if address.endswith(":0") else address

    async def receive(self) -> list[tuple[bytes, Any]]:
        arrived = [await self.queue.get()]
        while not self.queue.empty():
            arrived.append(self.queue.get_nowait())
        return arrived

    def run_over(self, reason: str) -> None:
        self.over = reason

    def refusals(self) -> dict[str, float]:
        return {"refused.malformed": 1.0}

    def send(self, peer: bytes, message: Any) -> bool:
        if self._on_send:
            self._on_send(peer, message)
        self.sent.append((peer, message))
        match message:
            case Work():
                self.queue.put_nowait((peer, answer(message, self.versions.get(peer, 0))))
            case NewWeights(weights=ref) | Welcome(weights=ref) if ref is not None and peer == b"s":
                self.versions[peer] = ref.version
                self.queue.put_nowait((peer, Loaded(version=ref.version, seconds=0.01, probe_error=0.0)))
            case Drain():
                self.queue.put_nowait((peer, Bye()))
        return True

    def close(self) -> None:
        self.closed = True


class FakeDemonstrations:
    """Demonstrations of one to three tokens, without a tokenizer."""

    def make(self, first: int, num: int) -> list[tuple[int, VerifiedGroup]]:
        return [(cursor, VerifiedGroup(group=self._group(cursor))) for cursor in range(first, first + num)]

    def _group(self, cursor: int) -> RolloutGroup:
        length = cursor % 3 + 1
        rollout = Rollout(
            index=0,
            token_ids=pack_ints([5] * length),
            logprobs=pack_floats([0.0] * length),
            versions=pack_ints([-1] * length),
            text="x",
        )
        return RolloutGroup(
            group_id=0,
            prompt=SmallTask().prompt("train", cursor),
            prompt_ids=pack_ints([1]),
            sampling=Sampling(rollouts=1),
            rollouts=[rollout],
            provenance="demonstration",
        )


STAGES = {
    "sft": StageConfig(source="demonstrations", steps=4, groups_per_step=3, publish_every=0),
    "rlsp": StageConfig(steps=10, groups_per_step=2),
}


def two_stages(tmp_path, **changes):
    return config(
        runs_dir=str(tmp_path),
        stages=STAGES,
        evaluation=EvaluationConfig(prompts=5, rollouts=2, before=["rlsp"], after=["rlsp"]),
        **changes,
    )


def server(cfg) -> ReplayServer:
    return ReplayServer(cfg, SmallTask(), FakeDemonstrations())  # type: ignore[arg-type]


async def until(so: Callable[[], bool]) -> None:
    for _ in range(5000):
        if so():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it never comes to that")


async def test_a_hub_that_stays_tells_everyone_that_the_run_is_complete(tmp_path):
    cfg, router, told = two_stages(tmp_path), FakeRouter(), []
    hub = ReplayServer(
        cfg,
        SmallTask(),
        FakeDemonstrations(),  # type: ignore[arg-type]
        on_finished=lambda status: told.append(status),
        stays=True,
    )
    running = asyncio.create_task(hub.run(lambda: router))
    await until(lambda: hasattr(router, "over"))
    assert router.over == "the run is complete"
    assert [(status.phase, status.step) for status in told] == [("finished", 14)]
    router.queue.put_nowait((b"late", hello("verifier", worker="verifier-9")))
    await until(lambda: any(peer == b"late" and isinstance(message, Drain) for peer, message in router.sent))
    assert not running.done()
    hub.stop("SIGTERM")
    await asyncio.wait_for(running, 20.0)
    assert len(told) == 1
    again = ReplayServer(cfg, SmallTask(), on_finished=lambda status: told.append(status))  # one that does not stay
    await asyncio.wait_for(again.run(lambda: FakeRouter({})), 20.0)
    assert (len(told), told[1].phase) == (2, "finished")


async def test_demonstrations_then_rollouts_then_files(tmp_path):
    cfg, router = two_stages(tmp_path), FakeRouter()
    await server(cfg).run(lambda: router)
    run = cfg.directory
    metrics, evaluations = read_jsonl(run / "metrics.jsonl"), read_jsonl(run / "evaluations.jsonl")
    assert [row["step"] for row in metrics] == list(range(1, 15))
    assert [row["stage"] for row in metrics] == ["sft"] * 4 + ["rlsp"] * 10
    assert all(row["lag_max"] <= cfg.stages["rlsp"].max_lag for row in metrics)
    assert metrics[0]["response_tokens"] == 2.0
    assert metrics[-1]["parts.correct"] == 1.0
    last = metrics[-1]["account"]
    assert last["generated"] == sum(value for name, value in last.items() if name != "generated")
    assert [(row["key"], row["version"]) for row in evaluations] == [("before rlsp", 4), ("after rlsp", 14)]
    rollouts = read_jsonl(run / "rollouts.jsonl")
    assert {row["step"] for row in rollouts if row["kind"] == "train"} == {1, 5, 13}
    kinds = {row["kind"] for row in read_jsonl(run / "timeline.jsonl")}
    assert kinds == {"sample", "verify", "train", "load", "evaluate"}
    status = [m for peer, m in router.sent if isinstance(m, Status)][-1]
    assert (status.phase, status.step, status.counts["trained"]) == ("finished", 14, 4 * 3 + 10 * 2)
    assert router.closed


async def test_what_the_socket_refused_is_a_figure_of_every_step_and_of_the_status(tmp_path, monkeypatch):
    monkeypatch.setattr("rlsp_async.replay.server.TICK_S", 0.001)
    cfg, router = two_stages(tmp_path), FakeRouter()
    await server(cfg).run(lambda: router)
    assert read_jsonl(cfg.directory / "metrics.jsonl")[-1]["refused.malformed"] == 1.0
    assert [m for _, m in router.sent if isinstance(m, Status)][-1].metrics["refused.malformed"] == 1.0


async def test_nothing_is_sent_before_it_is_committed(tmp_path, monkeypatch):
    cfg = two_stages(tmp_path)
    journalled: set[int] = set()
    early: list[Any] = []

    def on_send(peer: bytes, message: Any) -> None:
        if (
            isinstance(message, Work)
            and message.job.__class__.__name__ == "SampleJob"
            and (message.job.group_id not in journalled)
        ):
            early.append(message)

    class Watched(Journal):
        def commit(self, records: Any) -> None:
            kept = list(records)
            super().commit(kept)
            journalled.update(r.record.group_id for r in kept if hasattr(r, "record"))

    monkeypatch.setattr("rlsp_async.replay.server.Journal", Watched)
    await server(cfg).run(lambda: FakeRouter(on_send=on_send))
    assert len(journalled) > 20
    assert early == []


async def test_restart_in_the_middle_goes_on_where_it_was(tmp_path):
    cfg = two_stages(tmp_path)
    first = server(cfg)
    router = FakeRouter()
    task = asyncio.create_task(first.run(lambda: router))
    await until(lambda: first.is_open and first.hub.state.step >= 6)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    second, again = server(cfg), FakeRouter()
    await second.run(lambda: again)
    assert again.bound == ["tcp://127.0.0.1:4711"]
    hub_file = msgspec.json.decode((cfg.directory / "hub.json").read_bytes())
    assert (hub_file["address"], hub_file["incarnation"]) == ("tcp://127.0.0.1:4711", 2)
    steps = [row["step"] for row in read_jsonl(cfg.directory / "metrics.jsonl")]
    assert steps == sorted(set(steps))
    assert steps[-1] == 14
    assert second.hub.state.ledger.trained == 4 * 3 + 10 * 2


async def test_failed_run_raises_its_message(tmp_path):
    cfg = config(runs_dir=str(tmp_path), replay=ReplayConfig(stall_s=0.3))
    with pytest.raises(DivergedError, match="no sampler is connected"):
        await server(cfg).run(lambda: FakeRouter(peers={}))


async def test_stop_ends_the_run_without_an_error(tmp_path):
    cfg = config(runs_dir=str(tmp_path))
    hub = server(cfg)
    asyncio.get_running_loop().call_later(0.1, hub.stop, "Ctrl-C")
    await hub.run(lambda: FakeRouter(peers={b"l": "learner"}))
    assert hub.hub.state.ending.message == "Ctrl-C"


async def test_full_disk_stops_the_hub_with_one_sentence(tmp_path, monkeypatch):
    class Full(Journal):
        def commit(self, records: Any) -> None:
            raise MachineError("journal: database or disk is full")

    monkeypatch.setattr("rlsp_async.replay.server.Journal", Full)
    with pytest.raises(MachineError, match="full"):
        await server(two_stages(tmp_path)).run(FakeRouter)


async def test_task_without_demonstrations_is_one_sentence(tmp_path):
    class Nothing:
        def make(self, first: int, num: int) -> list[Any]:
            raise DataError("task 'small' has no demonstrations")

    cfg = two_stages(tmp_path)
    with pytest.raises(DataError, match="no demonstrations"):
        await ReplayServer(cfg, SmallTask(), Nothing()).run(FakeRouter)  # type: ignore[arg-type]
