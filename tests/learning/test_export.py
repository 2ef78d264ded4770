"""A checkpoint becomes a model directory, or one sentence says why not."""

import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM

from rlsp_async.config import to_toml
from rlsp_async.errors import DataError
from rlsp_async.learning.export import export_model
from rlsp_async.learning.learner import Learner
from rlsp_async.model.info import read_config
from tests.learning.small import Shelf, jobs, run_config
from tests.learning.test_learner import PPO


@pytest.fixture
def run(tmp_path, model_dir):
    """A run of two stages, stopped after step 5 of 6, with checkpoints of steps 4 and 5."""
    cfg = run_config(tmp_path, PPO)
    cfg.directory.mkdir(parents=True)
    (cfg.directory / "config.toml").write_text(to_toml(cfg))
    shutil.copytree(model_dir, cfg.directory / "model")
    learner = Learner(cfg, cfg.directory / "model", cfg.directory, Shelf())
    weights = {}
    for each in jobs()[:5]:
        step = learner.train(each).step
        weights[step] = {name: tensor.detach().clone() for name, tensor in learner.policy.policy_parameters()}
    learner.on_stop()
    return cfg.directory, weights


def is_model(directory, weights):
    """Whether transformers loads these weights from a directory."""
    model = AutoModelForCausalLM.from_pretrained(directory, local_files_only=True)
    found = dict(model.named_parameters())
    return found.keys() == weights.keys() and all(torch.equal(found[name], weights[name]) for name in weights)


def test_a_checkpoint_is_exported_as_the_model_that_it_is(run, tmp_path):
    directory, weights = run
    there = sorted(int(path.name[5:]) for path in (directory / "checkpoints").glob("step-*"))
    assert there == [4, 5]
    newest = export_model(directory)
    assert newest == directory / "exported" / "step-00000005"
    assert is_model(newest, weights[5])
    older = export_model(directory, step=there[0], out=tmp_path / "older")
    assert is_model(older, weights[there[0]])
    assert not is_model(older, weights[5])
    assert (newest / "tokenizer_config.json").read_bytes() == (
        directory / "model" / "tokenizer_config.json"
    ).read_bytes()
    of_stage = export_model(directory, stage="sft", out=tmp_path / "sft")
    assert is_model(of_stage, weights[2])
    counted = export_model(directory, step=3, stage="rl", out=tmp_path / "counted")
    assert (counted / "model.safetensors").read_bytes() == (newest / "model.safetensors").read_bytes()
    assert not list((directory / "exported").glob(".*"))


def test_what_cannot_be_exported_is_one_sentence(run, tmp_path):
    directory, _ = run
    with pytest.raises(DataError, match=r"no checkpoint of step 99; there are those of step [\d, ]*5 \("):
        export_model(directory, step=99)
    with pytest.raises(DataError, match=r"no checkpoint of step 9 of stage rl; there are those of step [\d, ]*3 \("):
        export_model(directory, step=9, stage="rl")
    with pytest.raises(DataError, match="there is no stage 'rlsp'; there is sft, rl"):
        export_model(directory, stage="rlsp")
    with pytest.raises(DataError, match="is no run: it has no config.toml"):
        export_model(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    with pytest.raises(DataError, match="is there already, and not an empty directory"):
        export_model(directory, out=tmp_path / "full")
    newest = directory / "checkpoints" / "step-00000005"
    with pytest.raises(DataError, match=r"is a checkpoint of a run, not a model; `rlsp export-model \S+ --step 5`"):
        read_config(newest)
    tensors = newest / "tensors.safetensors"
    content = tensors.read_bytes()
    tensors.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(DataError, match=r"damaged: tensors.safetensors does not have the digest"):
        export_model(directory)
    (newest / "DONE").unlink()
    with pytest.raises(DataError, match="it has no file DONE, so it is not complete"):
        export_model(directory)
    assert not (directory / "exported").exists() or not list((directory / "exported").iterdir())
