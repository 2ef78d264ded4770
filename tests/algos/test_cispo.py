"""CISPO: a clipped weight that is held fixed."""

import math

import pytest
import torch

from rlsp_async.algos import cispo
from tests.algos import given as make


def slow(cfg, given):
    base = given.behaviour if cfg.against == "behaviour" else given.old
    loss = torch.zeros(())
    for t in range(len(given.logp)):
        if given.mask[t]:
            rho = math.exp(given.logp[t].item() - base[t].item())
            weight = min(max(rho, 1 - cfg.clip_low), 1 + cfg.clip_high)
            loss = loss - given.share[t] * weight * given.adv[t] * given.logp[t]
    return loss


@pytest.mark.parametrize(
    "cfg", [cispo.Config(), cispo.Config(clip_low=0.1, clip_high=0.1), cispo.Config(against="old", clip_high=0.2)]
)
def test_gradient_is_that_of_a_slow_reference(cfg):
    given = make.drawn()
    loss, _ = cispo.token_loss(cfg, given)
    torch.testing.assert_close(loss, slow(cfg, given))
    torch.testing.assert_close(make.gradient(loss, given), make.gradient(slow(cfg, given), given))


def test_no_token_loses_its_gradient():
    """Ratios .3, .6, 1, 3, 7 with the bounds 0 and 5."""
    ratios = [0.3, 0.6, 1.0, 3.0, 7.0]
    given = make.tokens([math.log(r) - 3 for r in ratios], [0] * 5, behaviour=[-3.0] * 5, share=[1.0] * 5)
    loss, stats = cispo.token_loss(cispo.Config(), given)
    assert make.gradient(loss, given).tolist() == pytest.approx([-0.3, -0.6, -1.0, -3.0, -5.0], rel=1e-5)
    assert stats["weight_capped"].tolist() == [1.0, 5.0]


def test_only_against_the_old_policy_is_it_asked_for():
    assert cispo.needs(cispo.Config()) == frozenset()
    assert cispo.needs(cispo.Config(against="old")) == {"old"}
