"""`rlsp check` and the preparation load a model directory once, and refuse what the learner would refuse."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from rlsp_async import cli, config
from rlsp_async.cli.check import check
from rlsp_async.columns import ints
from rlsp_async.config import ModelConfig, RunConfig, StageConfig, TaskConfig
from rlsp_async.errors import DataError
from rlsp_async.model import read_longest_prompt, tiny_qwen2
from rlsp_async.runner.prepare import prepare
from rlsp_async.tokens import TokenizerCodec
from rlsp_async.weights.probe import read_initial_probe


@pytest.fixture
def run(tmp_path: Path) -> RunConfig:
    """A run on forty rows with a model directory of the user."""
    tiny_qwen2(tmp_path / "source", seed=0)
    rows = [json.dumps({"prompt": f"What is {i} + 1?", "answer": str(i + 1)}) + "\n" for i in range(40)]
    (tmp_path / "rows.jsonl").write_text("".join(rows))
    return RunConfig(
        name="r",
        runs_dir=str(tmp_path / "runs"),
        stages={"s": StageConfig()},
        task=TaskConfig(name="jsonl", options={"path_train": str(tmp_path / "rows.jsonl"), "heldout_share": 0.2}),
        evaluation=config.EvaluationConfig(prompts=4),
        model=ModelConfig(path=str(tmp_path / "source")),
    )


def written(run: RunConfig, tmp_path: Path) -> str:
    path = tmp_path / "run.toml"
    path.write_text(config.to_toml(run))
    return str(path)


def spoil(run: RunConfig) -> None:
    path = Path(run.model.path) / "model.safetensors"
    tensors = load_file(path)
    del tensors["lm_head.weight"]
    save_file(tensors, path, metadata={"format": "pt"})


def test_a_model_that_loads_is_prepared_and_its_window_kept(run: RunConfig, tmp_path: Path) -> None:
    out = io.StringIO()
    assert check(written(run, tmp_path), [], out) == 0
    assert "packed log-probs are those of its forward pass" in out.getvalue()
    assert "window                2048 tokens" in out.getvalue()
    prepare(run, run.directory)
    longest = read_longest_prompt(run.directory)
    assert longest is not None
    assert 20 < longest < 200
    probe = read_initial_probe(run.directory)
    assert probe is not None
    assert TokenizerCodec(run.directory / "model", ()).decode(ints(probe.ids).tolist())[:8] == "What is "
    assert len(ints(probe.ids)) == 64


def test_a_missing_tensor_is_one_line_and_nothing_is_left(
    run: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(run)
    with pytest.raises(DataError, match=r"lack tensors of the model: lm_head\.weight"):
        prepare(run, run.directory)
    assert not list((tmp_path / "runs").glob("*"))
    assert cli.main(["check", written(run, tmp_path)]) == 2
    assert "lm_head.weight" in capsys.readouterr().err


def test_quick_reads_headers_only(run: RunConfig, tmp_path: Path) -> None:
    spoil(run)
    out = io.StringIO()
    assert check(written(run, tmp_path), [], out, quick=True) == 0
    assert "packed log-probs" not in out.getvalue()
    (Path(run.model.path) / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(DataError, match="git-lfs pointer"):
        check(written(run, tmp_path), [], io.StringIO(), quick=True)


def test_an_engine_that_does_not_compute_the_model_is_refused(run: RunConfig, tmp_path: Path) -> None:
    path = Path(run.model.path) / "config.json"
    settings = json.loads(path.read_text()) | {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 1}
    settings.pop("layer_types", None)
    path.write_text(json.dumps(settings))
    with pytest.raises(DataError, match=r'does not compute a sliding window; set sampler\.engine = "vllm"'):
        check(written(run, tmp_path), ["sampler.engine=torch"], io.StringIO())
