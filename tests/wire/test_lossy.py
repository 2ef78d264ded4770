"""Real sockets, real links and the real hub behind a relay that loses, repeats and delays in both directions: every
step is trained once, in order, and everybody leaves by itself."""

from __future__ import annotations

import asyncio
import time
from random import Random
from typing import Any

import pytest

from rlsp_async.config import ReplayConfig, StageConfig
from rlsp_async.errors import MessageError
from rlsp_async.messages import SampleJob, StepReport, TrainJob, VerifyJob, WeightsRef
from rlsp_async.replay.ledger import SINKS
from rlsp_async.wire.link import LinkSettings, WorkerHooks, WorkerLink
from rlsp_async.wire.router import Router
from rlsp_async.wire.sockets import ConnectionLimits
from tests.replay.line import config, new_hub, report_of, rollouts_of, verdicts_of
from tests.wire.relay import Relay

HEARTBEAT_S, TIMEOUT_S, STEPS = 0.05, 1.0, 10
LIMITS = ConnectionLimits(heartbeat_s=HEARTBEAT_S, timeout_s=TIMEOUT_S, max_message_bytes=200_000)


class Trainer:
    """A learner's manners: steps in order only, the newest reports are remembered."""

    def __init__(self) -> None:
        self.step = 0
        self.trained: list[list[int]] = []
        self.reports: dict[int, StepReport] = {}

    async def train(self, job: TrainJob) -> StepReport:
        await asyncio.sleep(0.01)
        step = job.batch.step
        if step in self.reports:
            return self.reports[step]
        if step != self.step + 1:
            raise MessageError(f"step {step} cannot follow step {self.step}")
        self.step = step
        self.trained.append([verified.group.group_id for verified in job.batch.groups])
        self.reports[step] = report_of(job)
        return self.reports[step]


class Server:
    """The hub's shell without a disk."""

    def __init__(self, cfg: Any) -> None:
        self.hub = new_hub(cfg)
        self.router = Router(LIMITS)
        self.zero = time.monotonic()
        self.manifests: dict[int, list[int]] = {}

    def carry_out(self, effects: Any) -> None:
        for record in effects.records:
            if hasattr(record, "last_of_stage"):
                assert record.step not in self.manifests
                self.manifests[record.step] = record.groups
        for peer, message in effects.sends:
            self.router.send(peer, message)
        assert not effects.wants

    async def receive(self) -> None:
        while True:
            for peer, message in await self.router.receive():
                self.carry_out(self.hub.on(peer, message, time.monotonic() - self.zero))

    async def tick(self) -> None:
        while not self.hub.is_over:
            await asyncio.sleep(HEARTBEAT_S)
            self.carry_out(self.hub.tick(time.monotonic() - self.zero))


def link(role: Any, address: str, handler: Any, **more: Any) -> WorkerLink:
    who = LinkSettings(
        run="test",
        role=role,
        worker=f"{role}-0",
        credit=2 if role == "learner" else 4,
        incarnation=1,
        limits=LIMITS,
        give_up_s=10.0,
        drain_s=5.0,
    )
    return WorkerLink(who, lambda: address, WorkerHooks(handler=handler, **more))


@pytest.mark.timeout(50)
@pytest.mark.parametrize("seed", [1, 2])
async def test_a_run_over_a_bad_wire_trains_every_step_once(seed: int):
    cfg = config(
        stages={"rlsp": StageConfig(steps=STEPS, groups_per_step=2, target_lag=1, max_lag=4)},
        replay=ReplayConfig(heartbeat_s=HEARTBEAT_S, timeout_s=TIMEOUT_S, stall_s=20.0, retries=3),
    )
    served = [0]

    async def load(ref: WeightsRef) -> float:
        served[0] = ref.version
        return 0.0

    async def sample(job: SampleJob) -> Any:
        await asyncio.sleep(0.01)
        return rollouts_of(job, served[0])

    async def verify(job: VerifyJob) -> Any:
        return verdicts_of(job)

    trainer, server = Trainer(), Server(cfg)
    address = await server.router.bind("tcp://127.0.0.1:0")
    async with Relay(address, Random(seed), lost=0.15, twice=0.1, late=0.2, late_s=0.12) as relay:
        links = [
            link("sampler", relay.address, sample, on_weights=load),
            link("verifier", relay.address, verify),
            link("learner", relay.address, trainer.train, step=lambda: trainer.step),
        ]
        working = [asyncio.create_task(one.run()) for one in links]
        hearing = asyncio.create_task(server.receive())
        async with asyncio.timeout(40):
            await server.tick()
        assert server.hub.state.ending.kind == "finished", server.hub.state.ending.message
        hearing.cancel()
        for task in working:
            task.cancel()
        await asyncio.gather(hearing, *working, return_exceptions=True)
    server.router.close()
    state = server.hub.state
    assert trainer.trained == [server.manifests[step] for step in range(1, STEPS + 1)]
    assert state.ledger.counts()["alive"] == 0
    account = state.ledger.tokens()
    assert account["generated"] == sum(account[name] for name in SINKS)
    assert state.ledger.dropped.total() == state.ledger.dropped["stage_end"] + state.ledger.dropped["stale"]
    assert min(relay.num_lost, relay.num_twice, relay.num_late) > 10
