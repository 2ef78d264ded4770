"""`rlsp check`: what it prints of the shipped configs and of settings that may surprise."""

import io
from pathlib import Path

import pytest

from rlsp_async.cli.check import check, stage_facts
from rlsp_async.config import RewardConfig, RunConfig, StageConfig
from rlsp_async.errors import ConfigError
from rlsp_async.preflight import estimate

CONFIGS = Path(__file__).parents[2] / "launch" / "configs"


def output(path: Path, *overrides: str, quick: bool = False) -> str:
    out = io.StringIO()
    assert check(str(path), list(overrides), out, quick=quick) == 0
    return out.getvalue()


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_shipped_config_is_accepted(path: Path) -> None:
    assert f"rlsp check: {path} can run" in output(path)


def test_the_main_job_in_figures() -> None:
    text = output(CONFIGS / "ops_cpu.toml")
    assert "  stages.rlsp.optimizer.lr = 0.0003\n" in text
    assert "  learner.keep_checkpoints = 2\n" in text
    assert "capacity              64 groups" in text
    assert "worst lag             1 version " in text
    assert "a step                256 rollouts, up to 65.5 k tokens" in text
    assert "optimizer updates     96 " in text
    assert "processes             7 " in text
    assert "model                 218 k parameters" in text
    assert "bound C < 68.27 at alpha = 0.8" in text
    assert "warning" not in text


def test_missing_model_is_a_warning_here() -> None:
    text = output(CONFIGS / "gsm8k_qwen2.5-1.5b_2gpu.toml", quick=True)
    assert "warning: model.path: models/Qwen2.5-1.5B-Instruct: not on this machine" in text


def test_a_reward_that_prefers_wrong_answers_is_warned_of() -> None:
    text = output(CONFIGS / "ops_cpu.toml", "stages.rlsp.reward.scale=1000")
    assert "is BROKEN" in text
    assert "a correct answer shorter than 126 tokens scores below a wrong one of 256; lower scale below 68.27" in text


def test_options_of_an_algorithm_are_checked(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match=r"stages.rlsp: .*rlsp_cpuu"):
        check(str(CONFIGS / "ops_cpu.toml"), ["stages.rlsp.algorithm.preset=rlsp_cpuu"], io.StringIO())


def test_demonstrations_have_no_reward_and_no_lag() -> None:
    stage = StageConfig(source="demonstrations", reward=RewardConfig(explore="len_inv"))
    names = [fact.name for fact in stage_facts(RunConfig(name="x", stages={"sft": stage}), stage)]
    assert "buffer" in names and "correct beats wrong" not in names
    assert estimate.admitted_lag(stage) == 0
