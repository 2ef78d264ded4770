"""A run with success replay: honest workers on a bad wire, three prompts; some groups fail, no worker dies."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

from rlsp_async.config import EvaluationConfig, LearnerConfig, PromptsConfig, ReplayConfig, RunConfig, StageConfig
from rlsp_async.replay.records import Manifest
from tests.replay.chaos import Chaos
from tests.replay.line import config

ON: dict[str, Any] = {"capacity": 2}


def settings(success_replay: dict[str, Any], **fields: Any) -> RunConfig:
    replay = fields.pop("replay", ReplayConfig(retries=2, failures_per_100=100.0, stall_s=1e9))
    stage = StageConfig(
        **{
            "steps": 8,
            "groups_per_step": 3,
            "max_lag": 3,
            "success_replay": success_replay,
            "prompts": PromptsConfig(name="mopps", options={"pool": 3}),
            **fields,
        }
    )
    return config(
        stages={"a": stage}, evaluation=EvaluationConfig(prompts=0), replay=replay, learner=LearnerConfig(device="cpu")
    )


class Recorded(Chaos):
    """Keeps what the journal was given and what people read."""

    def __init__(self, cfg: RunConfig, directory: Path, seed: int = 0) -> None:
        self.records: list[Any] = []
        self.lines: list[Any] = []
        super().__init__(cfg, directory / "journal.sqlite", Random(seed), hub_dies=False)

    def carry_out(self, effects: Any) -> None:
        self.records += effects.records
        self.lines += effects.rows
        super().carry_out(effects)

    @property
    def batches_chosen(self) -> list[Manifest]:
        return [record for record in self.records if isinstance(record, Manifest)]


def run(directory: Path, success_replay: dict[str, Any] = ON, seed: int = 0, **fields: Any) -> Recorded:
    """A whole run; its journal stays open."""
    line = Recorded(settings(success_replay, **fields), directory, seed)
    line.settle()
    assert line.hub.state.ending.kind == "finished", line.hub.state.ending.message
    return line
