"""`learner.deterministic`: torch's switches are set before the model is loaded, and on a CPU the bits stay the same."""

import os

import pytest
import torch
from msgspec.structs import replace

from rlsp_async.config.loader import sections_to_keep
from rlsp_async.learning.learner import Learner
from tests.learning.small import Shelf, digest, jobs, run_config


@pytest.fixture
def switches(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    yield
    torch.use_deterministic_algorithms(False)


def trained(directory, model_dir, deterministic):
    cfg = run_config(directory, {"name": "ppo", "options": {"critic": "head"}})
    cfg = replace(cfg, learner=replace(cfg.learner, deterministic=deterministic))
    learner = Learner(cfg, model_dir, cfg.directory, Shelf())
    assert torch.are_deterministic_algorithms_enabled() is deterministic
    for each in jobs()[:4]:
        learner.train(each)
    return digest({n: p.detach() for n, p in learner.policy.policy_parameters()})


def test_deterministic_kernels_on_demand(tmp_path, model_dir, switches):
    plain = trained(tmp_path / "a", model_dir, False)
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    assert trained(tmp_path / "b", model_dir, True) == plain
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_a_run_that_does_not_ask_keeps_its_settings_as_they_were(tmp_path):
    cfg = run_config(tmp_path, {"name": "grpo"})
    assert "deterministic" not in sections_to_keep(cfg)["learner"]
    cfg = replace(cfg, learner=replace(cfg.learner, deterministic=True))
    assert sections_to_keep(cfg)["learner"]["deterministic"] is True
