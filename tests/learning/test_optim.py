"""Schedules, masters, Muon and what is not finite."""

import pytest
import torch

from rlsp_async import config
from rlsp_async.errors import DivergedError
from rlsp_async.learning import optim, policy


def test_warm_up_then_cosine_to_the_floor():
    cfg = config.OptimizerConfig(warmup_steps=2, schedule="cosine", floor=0.1)
    factors = [optim.scheduled(cfg, u, 6) for u in range(7)]
    assert factors == pytest.approx([0.5, 1.0, 1.0, 0.8681981, 0.55, 0.2318019, 0.1], abs=1e-6)


def test_constant_stays():
    assert [optim.scheduled(config.OptimizerConfig(), u, 6) for u in (0, 5, 99)] == [1.0, 1.0, 1.0]


def fill(made, value=1.0):
    for _, p in (*made.policy_parameters(), *made.critic_parameters()):
        p.grad = torch.full_like(p, value)


def names_that_moved(made, before):
    now = dict((*made.policy_parameters(), *made.critic_parameters()))
    return {n for n, p in now.items() if not torch.equal(p, before[n])}


def weights(made):
    return {n: p.detach().clone() for n, p in (*made.policy_parameters(), *made.critic_parameters())}


def test_muon_takes_the_matrices_and_adamw_the_rest(model_dir):
    made = policy.Policy(policy.load_model(model_dir), "head")
    updater = optim.Updater(config.OptimizerConfig(name="muon", lr=1e-3), made, 0.0, 10)
    assert set(updater._optimizers) == {"muon", "adamw", "critic"}
    muon, rest = (updater._optimizers[k][2] for k in ("muon", "adamw"))
    assert len(muon) == 2 * 7
    assert all("proj" in n for n in muon)
    assert any("embed" in n for n in rest)
    before = weights(made)
    fill(made)
    updater.step("here")
    assert names_that_moved(made, before) == set(before)


def test_critic_warm_up_moves_only_the_critic(model_dir):
    made = policy.Policy(policy.load_model(model_dir), "head")
    updater = optim.Updater(config.OptimizerConfig(lr=1e-3), made, 1e-2, 10)
    before = weights(made)
    fill(made)
    updater.step("here", critic_only=True)
    assert names_that_moved(made, before) == {"value_head.weight", "value_head.bias"}


def test_gradients_are_clipped_and_cleared(model_dir):
    made = policy.Policy(policy.load_model(model_dir))
    num = sum(p.numel() for _, p in made.policy_parameters())
    updater = optim.Updater(config.OptimizerConfig(lr=1e-3, clip_norm=0.5), made, 0.0, 10)
    fill(made)
    figures = updater.step("here")
    assert figures["grad_norm"] == pytest.approx(num**0.5, rel=1e-4)
    assert figures["lr"] == 1e-3
    assert all(p.grad is None for _, p in made.policy_parameters())


def test_a_gradient_that_is_not_finite_names_stage_and_step_and_leaves_the_weights(model_dir):
    made = policy.Policy(policy.load_model(model_dir))
    updater = optim.Updater(config.OptimizerConfig(), made, 0.0, 10)
    before = weights(made)
    fill(made, float("nan"))
    with pytest.raises(DivergedError, match="stage 'rl', step 3: grad_norm is nan"):
        updater.step("stage 'rl', step 3")
    assert names_that_moved(made, before) == set()


def test_small_steps_survive_in_bfloat16(model_dir):
    made = policy.Policy(policy.load_model(model_dir, "bfloat16"))
    updater = optim.Updater(config.OptimizerConfig(lr=1e-5), made, 0.0, 10)
    name, parameter = next(made.policy_parameters())
    before = updater._pairs[name][1].detach().clone()
    for _ in range(3):
        fill(made)
        updater.step("here")
    master = updater._pairs[name][1]
    torch.testing.assert_close(before - master, torch.full_like(before, 3e-5), atol=1e-6, rtol=0)
    assert torch.equal(parameter, master.to(torch.bfloat16))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_restored_optimizer_goes_on_as_if_nothing_had_happened(model_dir, dtype):
    cfg = config.OptimizerConfig(name="muon", lr=1e-3, schedule="cosine")
    first = policy.Policy(policy.load_model(model_dir, dtype), "head")
    going = optim.Updater(cfg, first, 0.0, 10)
    fill(first, 0.1)
    going.step("here")
    second = policy.Policy(policy.load_model(model_dir, dtype), "head")
    resumed = optim.Updater(cfg, second, 0.0, 10)
    with torch.no_grad():
        for (_, a), (_, b) in zip(first.named_parameters(), second.named_parameters(), strict=True):
            b.copy_(a)
    resumed.restore({k: v.clone() for k, v in going.state().items()}, going.num_done)
    for made, updater in ((first, going), (second, resumed)):
        fill(made, -0.3)
        updater.step("here")
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
