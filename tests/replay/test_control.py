"""The proof that the chaos tests can fail: without manifests the same schedules of kills lose what was charged.

The test double forgets which groups were chosen for a step when its learner comes back from a checkpoint, and chooses
other groups, as a hub without a journal would. Everything else, workers, wire and schedule, is the same.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from rlsp_async.config import EvaluationConfig, ReplayConfig, RunConfig, StageConfig
from rlsp_async.messages import Hello
from rlsp_async.replay.hub import Hub
from rlsp_async.replay.records import JournalContent
from tests.replay.chaos import Chaos
from tests.replay.line import SmallTask, config, weights

NUM_EVENTS = 300
SEEDS = (1, 2, 3, 4, 5, 6)


class ForgetfulHub(Hub):
    """A restarted learner is given freshly chosen batches; the groups of the old ones have been used up."""

    def on(self, peer: bytes, message: Any, now: float) -> Any:
        state = self.state
        if isinstance(message, Hello) and message.role == "learner" and message.step < state.training.last_manifest:
            known = state.table.newest.get(message.worker, (-1, 0))
            if (message.incarnation, message.seq) > known and message.incarnation > known[0]:
                self._forget(message.step)
        if isinstance(message, Hello) and message.role == "learner" and state.training.weights is not None:
            # Nor is it asked to publish its newest weights again: they pass for its own.
            mine = msgspec.structs.replace(state.training.weights, incarnation=message.incarnation)
            state.training.weights = mine
        return super().on(peer, message, now)

    def _forget(self, step: int) -> None:
        state = self.state
        for later in [s for s in state.training.manifests if s > step]:
            manifest = state.training.manifests.pop(later)
            for group_id in manifest.groups if later > state.step else ():
                state.ledger.finish(group_id, 10**9, 0, 1)
            state.training.reported.pop(later, None)
        state.training.to_train.clear()
        state.training.step = state.training.last_manifest = step
        state.training.weights = weights(step) if step else None
        state.training.version = step
        for worker in state.table.with_role("sampler"):
            worker.version = step


class NoJournal:
    def commit(self, records: list[Any]) -> None:
        """Nothing is written down."""

    def batch(self, step: int) -> list[Any]:
        raise AssertionError(f"batch {step} is gone")

    def close(self) -> None:
        """Nothing was opened."""


class Control(Chaos):
    def open_hub(self) -> None:
        self.journal = NoJournal()
        self.hub = ForgetfulHub(self.cfg, SmallTask(), JournalContent(incarnation=1), self.now)

    def check_manifests(self, records: list[Any]) -> None:
        """Only remembers the batches that were chosen first."""
        for manifest in (r for r in records if hasattr(r, "groups") and hasattr(r, "last_of_stage")):
            self.manifests.setdefault(manifest.step, manifest.groups)

    def load(self, worker: Any, version: int) -> None:
        worker.version = version
        super().load(worker, version)

    def carry_out(self, effects: Any) -> None:
        for worker in self.workers:
            worker.version = min(
                worker.version, self.hub.state.step
            )  # a learner that went back publishes its weights again
        super().carry_out(effects)

    def check_batch(self, batch: Any) -> None:
        """Another one is sent: that is what is being shown to happen."""

    def check_repeat(self, worker: Any, step: int, ids: list[int]) -> None:
        """It is what is being shown to happen."""


def run(kind: type[Chaos], seed: int) -> list[str]:
    stage = StageConfig(steps=24, groups_per_step=2, target_lag=1, max_lag=3, publish_every=1)
    cfg: RunConfig = config(
        stages={"a": stage},
        evaluation=EvaluationConfig(prompts=0),
        replay=ReplayConfig(retries=3, failures_per_100=100.0, stall_s=1e9),
    )
    with tempfile.TemporaryDirectory() as directory:
        chaos = kind(cfg, Path(directory) / "j.sqlite", Random(seed), hub_dies=False)
        for _ in range(NUM_EVENTS):
            chaos.event()
        learner = chaos.workers[-1]
        while len(learner.weights) == learner.checkpoint:
            chaos.event()
        learner.restart()  # at least one kill of a learner that has trained since its checkpoint
        chaos.deliver(learner, learner.hello())
        chaos.settle()
        assert chaos.hub.state.ending.kind == "finished", chaos.hub.state.ending.message
        chaos.journal.close()
        return chaos.violations()


@pytest.mark.parametrize("seed", SEEDS)
def test_with_manifests_a_schedule_of_kills_does_no_harm(seed: int):
    assert run(Chaos, seed) == []


@pytest.mark.parametrize("seed", SEEDS)
def test_without_manifests_the_same_schedule_loses_what_was_charged(seed: int):
    found = run(Control, seed)
    assert any("charged" in sentence for sentence in found), found
