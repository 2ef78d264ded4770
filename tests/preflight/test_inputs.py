"""`rlsp check` on stages that spawn: the task, the verifier, room for the longest prompt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlsp_async.config import (
    ModelConfig,
    RunConfig,
    SamplingConfig,
    ScratchModelConfig,
    StageConfig,
    TaskConfig,
)
from rlsp_async.errors import ConfigError
from rlsp_async.model import prepare_model
from rlsp_async.preflight import inputs


def config(task: TaskConfig, spawn: dict[str, Any], **changes: Any) -> RunConfig:
    return RunConfig(
        name="x",
        task=task,
        stages={"s": StageConfig(spawn=spawn)},
        sampling=SamplingConfig(max_new_tokens=64),
        **changes,
    )


def test_task_must_say_how_its_responses_are_put():
    with pytest.raises(ConfigError, match=r"stages\.s: spawn: task 'addition' does not say how"):
        inputs.check_modules(config(TaskConfig(name="addition"), {"share": 0.1}))
    inputs.check_modules(config(TaskConfig(name="ops"), {"share": 0.1}))
    inputs.check_modules(config(TaskConfig(name="addition"), {"share": 0.0}))


def test_verifier_must_read_the_rating(tmp_path: Path):
    file = tmp_path / "rows.jsonl"
    file.write_text(
        "".join(json.dumps({"prompt": f"What is {i} + 1?", "answer": str(i + 1)}) + "\n" for i in range(40))
    )
    options = {"path_train": str(file)}
    inputs.check_modules(config(TaskConfig(name="jsonl", options=options), {"share": 0.1}))
    with pytest.raises(ConfigError, match="verifier 'math' reads, and this run has 'exact'"):
        inputs.check_modules(config(TaskConfig(name="jsonl", options=options, verifier="exact"), {"share": 0.1}))


def test_longest_child_fits_the_window(tmp_path: Path):
    cfg = config(
        TaskConfig(name="ops"),
        {"max_tokens": 448},
        model=ModelConfig(scratch=ScratchModelConfig(hidden=32, layers=1, heads=1, context=512)),
    )
    prepare_model(cfg, tmp_path / "model")
    measured = inputs.measure(cfg, tmp_path / "model")
    assert measured
    assert measured.longest > 0
    with pytest.raises(ConfigError, match=r"stages\.s: spawn\.max_tokens = 449: .* set it to 448 or less"):
        inputs.measure(config(TaskConfig(name="ops"), {"max_tokens": 449}, model=cfg.model), tmp_path / "model")
