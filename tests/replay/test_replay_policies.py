"""A replay policy is one file: a third one is planted, and the hub, the journal and the metrics rows call it."""

from __future__ import annotations

import ast
from pathlib import Path
from random import Random

import pytest

from rlsp_async.config import EvaluationConfig, ReplayConfig, StageConfig
from rlsp_async.replay.hub import Hub
from rlsp_async.replay.journal import Journal
from rlsp_async.replay.policies import POLICIES
from tests.replay.chaos import Chaos
from tests.replay.line import Bench, SmallTask, config, hello
from tests.replay.tiny_policy import TinyPolicy
from tests.test_layers import inside, sources

S, V, L = b"s", b"v", b"l"


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlsp_async.replay.policies.POLICIES", [*POLICIES, "tests.replay.tiny_policy"])


def test_a_third_policy_in_one_file_is_asked_at_every_moment(planted: None, tmp_path: Path):
    cfg = config()
    journal = Journal(tmp_path / "j.sqlite", cfg)
    bench = Bench(Hub(cfg, SmallTask(), journal.load()))
    for peer, role in ((S, "sampler"), (V, "verifier"), (L, "learner")):
        bench.say(peer, hello(role, step=0))
    bench.run(S, V, L)
    journal.commit(bench.records)
    [policy] = bench.hub.state.policies
    assert isinstance(policy, TinyPolicy)
    hooks = ("on_issue", "on_sampled", "on_batch", "on_send", "on_reported", "on_stage_end")
    assert [policy.calls.count(hook) for hook in hooks] == [1, 6, 3, 3, 3, 1]
    figures = [row["tiny_batches"] for file, row in bench.lines if file == "metrics"]
    assert figures == sorted(figures) and figures[-1] == 3
    bodies = [record.body for record in bench.records if getattr(record, "body", None) is not None]
    assert 77 in {body.prompt.index for body in bodies}
    [again] = Hub(cfg, SmallTask(), journal.load()).state.policies  # what its own store gives back
    assert again.remembered(3) == [1, 2, 3]
    journal.close()


def test_the_invariants_hold_with_a_third_policy_through_kills_of_everything(planted: None, tmp_path: Path):
    stages = {"a": StageConfig(steps=5, groups_per_step=2, target_lag=1, max_lag=3)}
    replay = ReplayConfig(retries=2, failures_per_100=100.0, stall_s=1e9)
    cfg = config(stages=stages, evaluation=EvaluationConfig(prompts=0), replay=replay)
    chaos = Chaos(cfg, tmp_path / "j.sqlite", Random(3))
    for _ in range(200):
        chaos.event()
    chaos.kill_hub()  # compares what the policies remember before and after
    chaos.settle()
    assert chaos.hub.state.ending.kind == "finished"
    assert chaos.violations() == []
    chaos.journal.close()


@pytest.mark.parametrize("policy", POLICIES)
def test_the_rest_of_the_room_does_not_know_the_policies(policy: str):
    """Only `policies.POLICIES` names them; the journal's format knows the records of success replay (records.py)."""
    for name, source in sources():
        if inside(name, "rlsp_async.replay") and name != f"rlsp_async.replay.{policy}":
            imported = {
                alias.name if isinstance(node, ast.Import) else node.module
                for node in ast.walk(ast.parse(source))
                if isinstance(node, ast.Import | ast.ImportFrom)
                for alias in node.names
            }
            assert f"rlsp_async.replay.{policy}" not in imported, name
