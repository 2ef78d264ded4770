"""The ledger's invariants under random interleavings, with kills of every process, the hub included."""

from __future__ import annotations

import tempfile
from pathlib import Path
from random import Random

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from rlsp_async.config import EvaluationConfig, ReplayConfig, StageConfig
from tests.replay.chaos import Chaos
from tests.replay.line import config

NUM_EVENTS = 250


@st.composite
def stages(draw: st.DrawFn) -> StageConfig:
    target_lag = draw(st.integers(0, 2))
    max_lag = target_lag + draw(st.integers(0, 2))
    return StageConfig(
        steps=draw(st.integers(2, 5)),
        groups_per_step=draw(st.integers(1, 3)),
        target_lag=target_lag,
        max_lag=max_lag,
        max_uses=draw(st.integers(1, 3)),
        selection=draw(st.sampled_from(["fifo", "freshest"])),
        publish_every=draw(st.integers(1, max(1, max_lag))),
    )


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),
)  # a failure names its seed; to shrink it takes minutes
@given(first=stages(), second=stages(), evaluated=st.booleans(), every=st.integers(0, 2), seed=st.integers(0, 2**32))
def test_invariants_hold_whatever_happens(
    first: StageConfig, second: StageConfig, evaluated: bool, every: int, seed: int
):
    evaluation = EvaluationConfig(prompts=3 * evaluated, rollouts=2, before=["b"], after=["b"], every=every)
    cfg = config(
        stages={"a": first, "b": second},
        evaluation=evaluation,
        replay=ReplayConfig(retries=2, failures_per_100=100.0, stall_s=1e9),
    )
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as directory:
        chaos = Chaos(cfg, Path(directory) / "j.sqlite", Random(seed))
        for _ in range(NUM_EVENTS):
            chaos.event()
        chaos.settle()
        state = chaos.hub.state
        assert state.ending.kind == "finished", state.ending.message
        assert state.step == first.steps + second.steps
        assert chaos.violations() == []
        during = {f"during a {n}" for n in range(1, first.steps + 1) if every and n % every == 0}
        during |= {f"during b {n}" for n in range(1, second.steps) if every and n % every == 0}
        assert set(state.evaluations) == ({"before b", "after b"} | during if evaluated else set())
        chaos.journal.close()
