"""The plan of a run: [evaluate before] -> train -> [evaluate after], stage by stage. Pure.

Steps count on through all stages: with stages of 1000 and 24 steps the second trains steps 1001..1024. Where the run
stands follows from two facts alone (newest reported step, finished evaluations), so a restart needs nothing else.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Literal, NamedTuple

from rlsp_async.config import RunConfig, StageConfig


class Phase(NamedTuple):
    """What the line does now. Example: Phase("evaluate", "rlsp", "before rlsp")."""

    kind: Literal["train", "evaluate"]
    stage: str
    key: str = ""
    """Name of the evaluation; empty when training."""


class Plan:
    """Phases in order, and the steps of each stage."""

    def __init__(self, cfg: RunConfig) -> None:
        self.stages: dict[str, StageConfig] = cfg.stages
        self.first_step: dict[str, int] = {}
        self.last_step: dict[str, int] = {}
        step = 0
        for name, stage in cfg.stages.items():
            self.first_step[name], self.last_step[name] = step + 1, step + stage.steps
            step += stage.steps
        self.phases = list(_phases(cfg))

    def at(self, step: int, evaluated: Collection[str]) -> Phase | None:
        """The first phase that is not complete; None: the run is."""
        for phase in self.phases:
            done = step >= self.last_step[phase.stage] if phase.kind == "train" else phase.key in evaluated
            if not done:
                return phase
        return None

    def following(self, stage: str) -> str | None:
        """The stage after this one; None after the last."""
        names = list(self.stages)
        return next(iter(names[names.index(stage) + 1 :]), None)

    def stage_step(self, stage: str, step: int) -> int:
        """1-based step within a stage."""
        return step - self.first_step[stage] + 1


def _phases(cfg: RunConfig) -> Iterator[Phase]:
    for name in cfg.stages:
        if cfg.evaluation.prompts and name in cfg.evaluation.before:
            yield Phase("evaluate", name, f"before {name}")
        yield Phase("train", name)
        if cfg.evaluation.prompts and name in cfg.evaluation.after:
            yield Phase("evaluate", name, f"after {name}")
