"""The ledger's invariants under the model checker with every policy, and a hub that chooses the same after each kill.

The comparison of what a hub would choose before and after it was killed is in `Chaos.kill_hub`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from random import Random
from typing import Any

import pytest

from rlsp_async.audit.checks import audit
from rlsp_async.config import EvaluationConfig, PromptsConfig, ReplayConfig, StageConfig, TemperatureConfig
from tests.replay.chaos import Chaos
from tests.replay.line import config

NUM_EVENTS = 200
SEEDS = range(4)
POOL = {"pool": 7}
POLICIES: dict[str, dict[str, Any]] = {
    "mopps": {"prompts": PromptsConfig(name="mopps", options=POOL)},
    "curriculum": {"prompts": PromptsConfig(name="curriculum", options=POOL)},
    "bstar": {"temperature": TemperatureConfig(name="bstar", options={"target": 2})},
    "entropy": {"temperature": TemperatureConfig(name="entropy", options={"target": 0.9, "rate": 0.1})},
    "no_signal": {"drop_no_signal": True, "oversample": 1.5},
    "prioritised": {"selection": "prioritised", "max_uses": 2},
    "stratified": {"selection": "stratified", "selection_options": {"correct": 0.2}, "max_uses": 2},
    "half_new": {
        "selection": "freshest",
        "max_uses": 3,
        "max_lag": 6,
        "selection_options": {"min_new": 0.5, "remove": "most_used", "keep": 2},
    },
    "all_new": {"selection": "prioritised", "max_uses": 3, "max_lag": 6, "selection_options": {"min_new": 1.0}},
    "spawn": {"spawn": {"share": 0.5}, "max_uses": 2},
    "spawn_mopps": {
        "spawn": {"share": 0.3, "balance": False},
        "prompts": PromptsConfig(name="mopps", options=POOL),
        "drop_no_signal": True,
        "oversample": 1.5,
    },
    "min_ready": {"selection_options": {"min_ready": 3}, "oversample": 3.0},
    "spawn_successes": {
        "spawn": {"share": 0.4},
        "prompts": PromptsConfig(name="uniform", options={"pool": 3}),
        "success_replay": {"capacity": 2},
    },
    "successes": {"prompts": PromptsConfig(name="uniform", options={"pool": 3}), "success_replay": {"capacity": 2}},
    "old_successes": {
        "prompts": PromptsConfig(name="mopps", options={"pool": 3}),
        "max_uses": 2,
        "selection": "prioritised",
        "success_replay": {"capacity": 3, "total": 4, "max_age": 4, "max_uses": 2},
    },
    "together": {
        "prompts": PromptsConfig(name="mopps", options=POOL),
        "temperature": TemperatureConfig(name="bstar"),
        "selection": "prioritised",
        "max_uses": 2,
        "drop_no_signal": True,
        "oversample": 2.0,
        "selection_options": {"min_new": 0.5, "remove": "oldest"},
    },
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("policy", POLICIES)
def test_invariants_hold_with_every_policy(policy: str, seed: int):
    random = Random(f"{policy}/{seed}")
    fields = {"max_lag": 3, **POLICIES[policy]}
    stage = StageConfig(steps=5, groups_per_step=random.randint(1, 3), target_lag=random.randint(0, 2), **fields)
    cfg = config(
        stages={"a": stage},
        evaluation=EvaluationConfig(prompts=0),
        seed=seed,
        replay=ReplayConfig(retries=2, failures_per_100=100.0, stall_s=1e9),
    )
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as directory:
        chaos = Chaos(cfg, Path(directory) / "journal.sqlite", random)
        for _ in range(NUM_EVENTS):
            chaos.event()
        chaos.kill_hub()
        chaos.settle()
        assert chaos.hub.state.ending.kind == "finished", chaos.hub.state.ending.message
        assert chaos.violations() == []
        chaos.journal.close()
        checked = [
            f
            for f in audit(Path(directory) / "journal.sqlite").findings
            if f.guarantee in ("G3", "G4", "G5", "G14", "slots", "success")
        ]
        assert len(checked) == 6
        assert not [finding for finding in checked if finding.outcome == "violated"]
