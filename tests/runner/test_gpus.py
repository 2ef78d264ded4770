"""Which process gets which GPU, and what its environment says of it."""

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from rlsp_async.config import EvaluationConfig, LearnerConfig, RunConfig, SamplerConfig, StageConfig
from rlsp_async.cuda import is_shared_card, learner_share
from rlsp_async.errors import ConfigError
from rlsp_async.runner.gpus import assign_gpus, fill_count, gpu_environment, idle_gpus, visible_gpus
from rlsp_async.runner.run import check_gpus, resolve


def run(device: str = "auto", **sampler: Any) -> RunConfig:
    settings = {"engine": "vllm", "memory": 0.35} | sampler
    return RunConfig(
        name="r",
        stages={"s": StageConfig()},
        learner=LearnerConfig(device=device),  # type: ignore[arg-type]
        sampler=SamplerConfig(**settings),
    )


def test_the_learner_gets_the_first_gpu_and_each_sampler_its_own() -> None:
    assert assign_gpus([], run()) == {}
    assert assign_gpus(["0", "1"], run()) == {"learner-0": ["0"], "sampler-0": ["1"]}
    assert assign_gpus(["0", "1", "2"], run(count=2)) == {"learner-0": ["0"], "sampler-0": ["1"], "sampler-1": ["2"]}
    assert assign_gpus(["4", "5", "6"], run(tensor_parallel=2)) == {"learner-0": ["4"], "sampler-0": ["5", "6"]}
    assert assign_gpus(["0", "1"], run("cpu", count=2)) == {"sampler-0": ["0"], "sampler-1": ["1"]}
    assert assign_gpus(["0", "1"], run(engine="scripted", count=9)) == {"learner-0": ["0"]}
    assert assign_gpus(["0"], run(count=2)) == {"learner-0": ["0"], "sampler-0": ["0"], "sampler-1": ["0"]}


@pytest.mark.parametrize(
    ("gpus", "sampler", "advice"),
    [
        (
            "0 1 2",
            {"count": 3},
            "needs 3 GPUs beside the learner's, and this machine has 2 .1, 2.: set sampler.count = 2",
        ),
        ("0 1 2", {"tensor_parallel": 4}, "set sampler.count = 0 and sampler.tensor_parallel = 2"),
        ("0", {"tensor_parallel": 2}, "sampler.tensor_parallel = 2, and this machine has one GPU: set it to 1"),
        ("0", {"count": 3}, "3 samplers with sampler.memory = 0.35 leave nothing of the only GPU"),
    ],
)
def test_more_than_there_is_is_refused(gpus: str, sampler: dict[str, int], advice: str) -> None:
    with pytest.raises(ConfigError, match=advice):
        assign_gpus(gpus.split(), run(**sampler))


def test_idle_gpus() -> None:
    assert idle_gpus(["0", "1", "2"], {"learner-0": ["0"], "sampler-0": ["2"]}) == ["1"]
    assert idle_gpus(["0", "1"], {}) == []


def test_a_run_is_told_before_it_starts(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    check_gpus(run())
    assert "2 of 4 GPUs (2, 3) stay idle: raise sampler.count" in capsys.readouterr().out
    check_gpus(run(count=3))
    assert capsys.readouterr().out == ""
    with pytest.raises(ConfigError, match=r"set sampler\.count = 3"):
        check_gpus(run(count=4))


def test_a_learner_that_shares_its_gpu_leaves_the_samplers_their_share() -> None:
    assigned = assign_gpus(["0"], run(memory=0.35))
    assert is_shared_card(gpu_environment("learner-0", assigned))
    assert learner_share(0.35) == pytest.approx(0.62)
    assert not is_shared_card(gpu_environment("learner-0", assign_gpus(["0", "1"], run())))


def test_the_environment_of_a_process() -> None:
    assigned = assign_gpus(["0", "1", "2"], run(tensor_parallel=2))
    nvml = {"PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
    assert gpu_environment("verifier-0", assigned) == gpu_environment("sampler-0", {}) == nvml
    assert gpu_environment("sampler-0", assigned) == {
        **nvml,
        "CUDA_VISIBLE_DEVICES": "1,2",
        "RLSP_SHARED_CARD": "0",
    }
    assert gpu_environment("learner-0", assign_gpus(["7"], run())) == {
        **nvml,
        "CUDA_VISIBLE_DEVICES": "7",
        "RLSP_SHARED_CARD": "1",
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
    }


def test_visible_gpus(tmp_path: Path) -> None:
    for name in ("nvidia0", "nvidia10", "nvidia2", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert visible_gpus({}, tmp_path) == ["0", "2", "10"]
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "3,1"}, tmp_path) == ["3", "1"]
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": ""}, tmp_path) == []
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "-1"}, tmp_path) == []
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "2, GPU-5ebe, -1, 3"}, tmp_path) == ["2", "GPU-5ebe"]


def test_as_many_samplers_as_fit() -> None:
    assert fill_count(run(count=0), ["0", "1", "2", "3", "4"]).sampler.count == 4
    assert fill_count(run(count=0, tensor_parallel=2), ["0", "1", "2", "3", "4", "5"]).sampler.count == 2
    assert fill_count(run("cpu", count=0), ["0", "1"]).sampler.count == 2
    assert fill_count(run(count=1), ["0", "1", "2"]).sampler.count == 1


def test_ranks_of_the_learner_come_first() -> None:
    cfg = run(count=0)
    cfg = replace(cfg, learner=replace(cfg.learner, ranks=4))
    assert fill_count(cfg, [str(number) for number in range(8)]).sampler.count == 4
    assert fill_count(cfg, ["0", "1", "2", "3"]).sampler.count == 0


def test_without_a_gpu_to_spare_samplers_join_from_elsewhere() -> None:
    assert fill_count(run(count=0), ["0"]).sampler.count == fill_count(run(count=0), []).sampler.count == 0
    nothing = replace(run(count=0), stages={"s": StageConfig(source="demonstrations")}, evaluation=EvaluationConfig())
    assert fill_count(nothing, ["0", "1", "2"]).sampler.count == 0


def test_a_run_gets_the_number_before_anything_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    assert resolve(run(count=0)).sampler.count == 2


def test_gib_are_no_share_of_a_gpu() -> None:
    with pytest.raises(ConfigError, match=r"sampler\.memory = 4: on a GPU it is the share .* set it to about 0\.85"):
        assign_gpus(["0", "1"], run(memory=4.0))
    assert assign_gpus([], run(memory=4.0)) == {}  # GiB, without a GPU
    assert assign_gpus(["0", "1"], run(engine="torch", memory=4.0))
