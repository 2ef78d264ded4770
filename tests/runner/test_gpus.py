"""Which process gets which GPU."""

from pathlib import Path

from rlsp_async.runner.gpus import assign_gpus, visible_gpus


def test_gpus_are_shared_out() -> None:
    assert assign_gpus([], 1, 1) == assign_gpus(["0"], 2, 1) == {}
    assert assign_gpus(["0", "1"], 1, 1) == {"learner-0": "0", "sampler-0": "1"}
    assert assign_gpus(["0", "1", "2"], 3, 1) == {
        "learner-0": "0",
        "sampler-0": "1",
        "sampler-1": "2",
        "sampler-2": "1",
    }
    assert assign_gpus(["4", "5", "6"], 1, 2) == {"learner-0": "4", "sampler-0": "5,6"}


def test_visible_gpus(tmp_path: Path) -> None:
    for name in ("nvidia0", "nvidia10", "nvidia2", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert visible_gpus({}, tmp_path) == ["0", "2", "10"]
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "3,1"}, tmp_path) == ["3", "1"]
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": ""}, tmp_path) == []
