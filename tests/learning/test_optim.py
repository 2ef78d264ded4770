"""Schedules, masters, Muon, what is not finite, and the average of a policy."""

import pytest
import torch

from rlsp_async import config
from rlsp_async.errors import DataError, DivergedError
from rlsp_async.learning import optim, policy


def test_warm_up_then_cosine_to_the_floor():
    cfg = config.OptimizerConfig(warmup_steps=2, schedule="cosine", floor=0.1)
    factors = [optim.lr_factor(cfg, u, 6) for u in range(7)]
    assert factors == pytest.approx([0.5, 1.0, 1.0, 0.8681981, 0.55, 0.2318019, 0.1], abs=1e-6)


def test_constant_stays():
    assert [optim.lr_factor(config.OptimizerConfig(), u, 6) for u in (0, 5, 99)] == [1.0, 1.0, 1.0]


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
    muon, rest = updater.names("muon"), updater.names("adamw")
    assert updater.names("critic") == ["value_head.weight", "value_head.bias"]
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
    before = updater.master(name).detach().clone()
    for _ in range(3):
        fill(made)
        updater.step("here")
    master = updater.master(name)
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


def test_micro_batches_add_up_in_float32(model_dir):
    made = policy.Policy(policy.load_model(model_dir, "bfloat16"))
    updater = optim.Updater(config.OptimizerConfig(), made, 0.0, 10)
    for factor in (1.0, *[2.0**-9] * 64):  # in bfloat16, 1 + 2**-9 is 1
        sum((p * factor).sum() for _, p in made.policy_parameters()).backward()
    for name, parameter in made.policy_parameters():
        assert parameter.grad is None
        torch.testing.assert_close(updater.master(name).grad, torch.full(parameter.shape, 1.125))
    updater.close()
    sum(p.sum() for _, p in made.policy_parameters()).backward()
    assert all(p.grad is not None for _, p in made.policy_parameters())


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_the_fused_kernels_find_their_number_of_updates_beside_the_weights(model_dir, name):
    cfg = config.OptimizerConfig(name=name, lr=1e-3)
    made = policy.Policy(policy.load_model(model_dir))
    going = optim.Updater(cfg, made, 0.0, 10)
    fill(made, 0.1)
    going.step("here")
    elsewhere = optim.Updater(cfg, policy.Policy(policy.load_model(model_dir)).to("meta"), 0.0, 10)
    elsewhere.restore(going.state(), 1)
    for optimizer, _, names in elsewhere._optimizers.values():
        for n in names:
            for field, value in optimizer.state[elsewhere.master(n)].items():
                assert value.device.type == "meta", (n, field)


# --- Muon ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(16, 24), (24, 16), (16, 16)])
def test_stacked_muon_makes_torchs_steps(shape):
    torch.manual_seed(0)
    start = [torch.randn(shape) for _ in range(3)]
    runs = []
    for kind in (torch.optim.Muon, optim.StackedMuon):
        matrices = [m.clone().requires_grad_() for m in start]
        optimizer = kind(matrices, lr=0.02, weight_decay=0.1, adjust_lr_fn="original")
        generator = torch.Generator().manual_seed(1)
        for _ in range(3):
            for m in matrices:
                m.grad = torch.randn(shape, generator=generator)
            optimizer.step()
        runs.append(torch.stack([m.detach() for m in matrices]))
    moved = (runs[0] - torch.stack(start)).abs().mean()
    assert (runs[0] - runs[1]).abs().mean() < 0.02 * moved  # torch computes in bfloat16


def test_singular_values_come_near_one():
    torch.manual_seed(0)
    values = torch.linalg.svdvals(optim.orthogonalise(torch.randn(2, 12, 40)))
    assert values.min() > 0.6
    assert values.max() < 1.3


def test_large_matrices_go_one_by_one():
    assert type(optim.make_muon([torch.zeros(8, 8, requires_grad=True)], 0.1, 0.0)) is optim.StackedMuon
    assert type(optim.make_muon([torch.zeros(512, 512, requires_grad=True)], 0.1, 0.0)) is torch.optim.Muon


def test_a_matrix_without_gradient_stays():
    matrices = [torch.ones(4, 4, requires_grad=True) for _ in range(2)]
    matrices[0].grad = torch.ones(4, 4)
    optim.StackedMuon(matrices, lr=0.1, weight_decay=0.0).step()
    assert not torch.equal(matrices[0], torch.ones(4, 4))
    assert torch.equal(matrices[1], torch.ones(4, 4))


# --- the average of a policy ----------------------------------------------------------------------------------------


class OneWeight:
    """The part of a policy that the average reads."""

    def __init__(self, values, dtype=torch.float32):
        self.parameter = torch.nn.Parameter(torch.tensor(values, dtype=dtype))

    def policy_parameters(self):
        yield "w", self.parameter


def test_by_hand():
    reference, policy = OneWeight([1.0, 2.0]), OneWeight([3.0, 2.0])
    made = optim.PolicyAverage(reference, 0.25)
    made.follow(policy)
    assert reference.parameter.tolist() == [1.5, 2.0]
    made.follow(policy)
    assert reference.parameter.tolist() == [1.875, 2.0]


def test_a_small_rate_does_not_vanish_in_bfloat16():
    reference, policy = OneWeight([1.0], torch.bfloat16), OneWeight([2.0], torch.bfloat16)
    made = optim.PolicyAverage(reference, 0.001)
    for _ in range(100):
        made.follow(policy)
    assert made.state()["w"].item() == pytest.approx(2 - 0.999**100, rel=1e-5)
    assert reference.parameter.item() == pytest.approx(1.095, abs=0.004)
    again = optim.PolicyAverage(OneWeight([1.0], torch.bfloat16), 0.001)
    again.restore(made.state())
    assert torch.equal(again.state()["w"], made.state()["w"])


def test_the_average_of_another_model_is_refused():
    made = optim.PolicyAverage(OneWeight([1.0, 2.0]), 0.1)
    for tensors in ({}, {"w": torch.zeros(3)}, {"v": torch.zeros(2)}):
        with pytest.raises(DataError, match="not of this model"):
            made.restore(tensors)


def test_clip_norm_0_leaves_gradients_as_they_are(model_dir):
    for clip_norm, largest in ((0.0, 400.0), (1.0, 1.0), (10_000.0, 400.0)):
        made = policy.Policy(policy.load_model(model_dir))
        updater = optim.Updater(config.OptimizerConfig(lr=0.0, clip_norm=clip_norm), made, 0.0, 10)
        name, parameter = next(iter(made.policy_parameters()))
        parameter.grad = torch.zeros_like(parameter)
        parameter.grad.view(-1)[0] = 400.0
        assert updater._clip([name]) == pytest.approx(400.0)
        assert float(parameter.grad.abs().max()) == pytest.approx(largest, rel=1e-4)
