"""REINFORCE++: returns with KL inside, whitened over the batch."""

import math

import pytest
import torch

from rlsp_async.algos import reinforce_pp
from tests.algos import given as make


def test_returns_by_hand():
    """r = (-.05, 0, 1) and (0): returns .95, 1, 1 and 0; mean .7375, standard deviation .426285."""
    batch = make.batch([1.0, 0.0], [0, 0], [3, 1], old_N=[-1.0] * 4, reference_N=[-1.5, -1.0, -1.0, -1.0])
    out = reinforce_pp.advantages(reinforce_pp.Config(kl_coef=0.1), batch)
    assert out.adv_N.tolist() == pytest.approx([0.498493, 0.615785, 0.615785, -1.730063], abs=1e-5)
    assert out.stats["kl_penalty"] == pytest.approx(0.025)


def test_discount_by_hand():
    """gamma .5: returns .25, .5, 1 and 0."""
    out = reinforce_pp.advantages(reinforce_pp.Config(kl_coef=0.0, gamma=0.5), make.batch([1.0, 0.0], [0, 0], [3, 1]))
    mean, std = 0.4375, math.sqrt((0.25**2 + 0.5**2 + 1) / 4 - 0.4375**2)
    assert out.adv_N.tolist() == pytest.approx([(r - mean) / std for r in (0.25, 0.5, 1, 0)], abs=1e-5)


def test_the_baseline_is_the_groups_mean_and_whitening_stays():
    batch = make.batch([1.0, 0, 5, 4], [0, 0, 1, 1], [1, 1, 1, 1])
    plain, centred = (
        reinforce_pp.advantages(reinforce_pp.Config(kl_coef=0.0, baseline=b), batch).adv_N.tolist()
        for b in ("none", "group")
    )
    assert centred == pytest.approx([1, -1, 1, -1], abs=1e-5)
    assert plain == pytest.approx([-0.727607, -1.212678, 1.212678, 0.727607], abs=1e-5)


@pytest.mark.parametrize("cfg", [reinforce_pp.Config(), reinforce_pp.Config(weight_cap=0.0)])
def test_gradient_is_that_of_a_slow_reference(cfg):
    given, slow = make.drawn(), torch.zeros(())
    for t in range(len(given.logp)):
        if given.mask[t]:
            rho, adv = torch.exp(given.logp[t] - given.old[t]), given.adv[t]
            weight = min(math.exp(given.old[t] - given.behaviour[t]), cfg.weight_cap) if cfg.weight_cap else 1.0
            slow = slow - given.share[t] * weight * torch.minimum(rho * adv, rho.clamp(0.8, 1.2) * adv)
    loss, _ = reinforce_pp.token_loss(cfg, given)
    torch.testing.assert_close(loss, slow)
    torch.testing.assert_close(make.gradient(loss, given), make.gradient(slow, given))


def test_only_a_price_on_kl_keeps_a_reference():
    assert reinforce_pp.needs(reinforce_pp.Config()) == {"old", "reference"}
    assert reinforce_pp.needs(reinforce_pp.Config(kl_coef=0.0)) == {"old"}
