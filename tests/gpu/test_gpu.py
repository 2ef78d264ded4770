"""The trials of `rlsp selftest --gpu`, one test each. Without a GPU they are skipped before anything heavy is imported."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rlsp_async.runner.gpus import visible_gpus
from rlsp_async.selftest.run_trials import run_trial, what_there_is
from rlsp_async.selftest.trials import GPU, Trial, lacking

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not visible_gpus(os.environ), reason="no NVIDIA device on this machine"),
]


@pytest.mark.parametrize(
    "trial", [pytest.param(each, marks=pytest.mark.timeout(each.seconds + 30), id=each.name) for each in GPU]
)
def test_trial(trial: Trial, tmp_path: Path) -> None:
    if missing := lacking(trial, what_there_is("cuda")):
        pytest.skip(f"needs {missing}")
    outcome = run_trial(trial, "cuda", tmp_path, trial.seconds)
    assert outcome.status == "passed", outcome.text
