"""Decoupled PPO and V-trace in PPO; PPO's other numbers worked out by hand are in test_contract.py."""

import math

import pytest
import torch

from rlsp_async import config
from rlsp_async.algos import base, corrections, maths, ppo
from rlsp_async.algos.corrections import token_view
from rlsp_async.errors import ConfigError
from tests.algos import given as make


def preset(name):
    return base.load_algorithm(config.AlgorithmChoice(name="ppo", preset=name))[1]


def policy_tokens(**columns):
    """The golden token of decoupled PPO, with a critic whose value is exact."""
    filled = {
        "behaviour": [-1.2],
        "old": [-1.0],
        "adv": [1.0],
        "values": [0.0],
        "old_values": [0.0],
        "returns": [0.0],
        **columns,
    }
    return make.tokens([-0.7], [0], **filled)


def test_decoupled_token_golden():
    assert ppo.token_loss(preset("decoupled_paper"), policy_tokens())[0].item() == pytest.approx(-1.465683, abs=1e-6)


def test_over_its_cap_the_paper_keeps_the_weight_and_the_released_code_drops_the_token():
    far = policy_tokens(behaviour=[-3.0])  # w = e^2 = 7.39
    assert ppo.token_loss(preset("decoupled_paper"), far)[0].item() == pytest.approx(-1.2 * math.exp(2), rel=1e-5)
    assert ppo.token_loss(ppo.Config(weight_cap=5.0), far)[0].item() == pytest.approx(-1.2 * 5)
    cfg = preset("decoupled_areal")
    for given, loss in ((far, 0.0), (policy_tokens(), -1.465683)):
        seen = token_view(given.old, given.behaviour, given.adv, given.mask, given.rollout)
        factor = corrections.correct(cfg.corrections, seen, corrections.measure_limit(cfg.corrections, seen))[0]
        made = ppo.token_loss(cfg, make.replace(given, share=factor, value_share=given.share))[0]
        assert made.item() == pytest.approx(loss, abs=1e-6)


def test_interpolated_proximal_by_hand():
    """Lag 1: the proximal policy is half-way, at -.95; rho = e^.25 is clipped to 1.2, w = e^.25."""
    given = policy_tokens(lag=[1])
    made = ppo.token_loss(ppo.Config(proximal="interpolated"), given)[0]
    assert made.item() == pytest.approx(-1.2 * math.exp(0.25), rel=1e-5)
    fresh = ppo.token_loss(ppo.Config(proximal="interpolated"), policy_tokens(lag=[0]))[0]
    assert fresh.item() == pytest.approx(-1.2)  # the policy that sampled is the proximal one: w = 1


@pytest.mark.parametrize(
    "cfg",
    [
        ppo.Config(),
        ppo.Config(weight_cap=1.1),
        ppo.Config(proximal="interpolated"),
        ppo.Config(returns="vtrace"),
        ppo.Config(weight_cap=0.0),
        ppo.Config(proximal="behaviour", weight_cap=0.0),
    ],
)
def test_gradient_is_that_of_a_slow_reference(cfg):
    given = make.drawn()
    zeros, lag = torch.zeros(len(given.logp)), torch.arange(len(given.logp))
    given = make.replace(given, values=zeros, old_values=zeros, returns=zeros, lag=lag)
    slow = torch.zeros(())
    for t in range(len(given.logp)):
        if not given.mask[t]:
            continue
        old, behaviour = given.old[t], given.behaviour[t]
        if cfg.proximal == "interpolated":
            old = behaviour + lag[t] / (lag[t] + 1) * (given.logp[t].detach() - behaviour)
        if cfg.proximal == "behaviour":
            old = behaviour
        rho, adv = torch.exp(given.logp[t] - old), given.adv[t]
        corrects = cfg.weight_cap and cfg.returns != "vtrace"
        weight = min(math.exp(old - behaviour), cfg.weight_cap) if corrects else 1.0
        slow = slow - given.share[t] * weight * torch.minimum(rho * adv, rho.clamp(0.8, 1.2) * adv)
    loss, _ = ppo.token_loss(cfg, given)
    torch.testing.assert_close(loss, slow)
    torch.testing.assert_close(make.gradient(loss, given), make.gradient(slow, given))


def test_the_ratio_to_the_policy_that_sampled_counts_once():
    with pytest.raises(ValueError, match="weight_cap"):
        ppo.Config(proximal="behaviour")
    assert ppo.Config(proximal="behaviour", weight_cap=0.0).carries() == "behaviour"


def test_the_critic_learns_from_what_the_stages_leave_out():
    given = policy_tokens(values=[0.5], returns=[1.0], share=[0.0], value_share=[1.0])
    assert ppo.token_loss(ppo.Config(value_clip=0.0), given)[0].item() == pytest.approx(0.125)


# --- V-trace ---------------------------------------------------------------------------------------------------------


def test_vtrace_golden():
    cfg = ppo.Config(whiten=False, kl_coef=0.0, returns="vtrace", weight_cap=1.0, lam=1.0)
    batch = make.batch([1.0], [0], [3], values_N=[0.2, 0.4, 0.6], old_N=torch.tensor([0.5, 2.0, 1.2]).log())
    out = ppo.advantages(cfg, batch)
    assert out.adv_N.tolist() == pytest.approx([0.4, 0.6, 0.4])
    assert out.returns_N.tolist() == pytest.approx([0.6, 1.0, 1.0])


def test_vtrace_is_its_definition_as_a_sum():
    """vs_t - V_t = sum_k gamma^(k-t) prod_{i<k} c_i delta_k, two rollouts of different length."""
    g = torch.Generator().manual_seed(2)
    reward, values, rho = (torch.rand(5, generator=g, dtype=torch.float64) * 2 for _ in range(3))
    gamma, lam, cap = 0.9, 0.8, 1.3
    adv, target = maths.vtrace(reward, values, rho, torch.tensor([2, 3]), gamma=gamma, lam=lam, cap=cap)
    for first, last in ((0, 2), (2, 5)):
        v = [*values[first:last].tolist(), 0.0]
        r, w = reward[first:last].tolist(), rho[first:last].tolist()
        delta = [min(w[t], cap) * (r[t] + gamma * v[t + 1] - v[t]) for t in range(len(r))]
        vs = [
            v[t]
            + sum(
                gamma ** (k - t) * math.prod(lam * min(w[i], 1.0) for i in range(t, k)) * delta[k]
                for k in range(t, len(r))
            )
            for t in range(len(r))
        ] + [0.0]
        assert target[first:last].tolist() == pytest.approx(vs[:-1])
        assert adv[first:last].tolist() == pytest.approx(
            [min(w[t], cap) * (r[t] + gamma * vs[t + 1] - v[t]) for t in range(len(r))]
        )


def test_on_policy_vtrace_is_the_lambda_return_of_gae_with_lambda_one():
    reward, values, length = torch.tensor([0.0, 0, 1]), torch.tensor([0.2, 0.4, 0.6]), torch.tensor([3])
    adv, target = maths.vtrace(reward, values, torch.ones(3), length, gamma=1.0, lam=1.0, cap=1.0)
    torch.testing.assert_close(adv, maths.gae(reward, values, length, 1.0, 1.0))
    torch.testing.assert_close(target, adv + values)


def test_vtrace_without_a_cap_is_refused():
    with pytest.raises(ConfigError, match="needs weight_cap above 0"):
        base.load_algorithm(config.AlgorithmChoice(name="ppo", options={"returns": "vtrace", "weight_cap": 0.0}))
