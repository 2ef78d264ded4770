"""TOPR: the taper by sign of the multiplier, the rollout's ratio, the baseline as composition."""

import math

import pytest
import torch

from rlsp_async import config
from rlsp_async.algos import base, topr
from rlsp_async.errors import ConfigError
from tests.algos import given as make


def slow(cfg, given):
    """The loss with loops and python floats, autograd only through logp."""
    loss = torch.zeros(())
    for numbers in make.members(given):
        total = sum(given.logp[t].item() - given.behaviour[t].item() for t in numbers)
        for t in numbers:
            low, high = cfg.positive if given.adv[t] > 0 else cfg.negative
            weight = min(max(math.exp(total), low), high)
            loss = loss - given.share[t] * weight * given.adv[t] * given.logp[t]
    return loss


@pytest.mark.parametrize("preset", ["", *topr.PRESETS])
def test_gradient_is_that_of_a_slow_reference(preset):
    given, cfg = make.drawn(), base.load_algorithm(config.AlgorithmChoice(name="topr", preset=preset))[1]
    loss, _ = topr.token_loss(cfg, given)
    torch.testing.assert_close(loss, slow(cfg, given))
    torch.testing.assert_close(make.gradient(loss, given), make.gradient(slow(cfg, given), given))


def test_golden_loss_without_division_by_length():
    given = make.tokens(
        [-1.0, -3.0, -6.0, -6.0],
        [0, 0, 1, 2],
        behaviour=[-2.0, -3.0, -5.0, -8.0],
        adv=[1.0, 1.0, -1.0, -1.0],
        share=[1 / 3] * 4,
    )
    loss, stats = topr.token_loss(topr.Config(aggregation="seq_sum"), given)
    assert loss.item() == pytest.approx(-1.402426, abs=1e-6)
    assert stats["weight_negative"].tolist() == pytest.approx([1.367879, 2.0], abs=1e-6)
    assert stats["weight_positive"].tolist() == [2.0, 2.0]


def test_a_positive_learns_in_full_however_improbable_it_has_become():
    given = make.tokens([-30.0], [0], behaviour=[-1.0], share=[1.0])
    assert make.gradient(topr.token_loss(topr.Config(), given)[0], given).tolist() == [-1.0]


def test_an_improbable_negative_is_left_alone_even_where_a_token_became_likelier():
    given = make.tokens([-9.0, -1.0], [0, 0], behaviour=[-1.0, -2.0], adv=[-1.0, -1.0], share=[1.0, 1.0])
    assert make.gradient(topr.token_loss(topr.Config(), given)[0], given).tolist() == pytest.approx([math.exp(-7)] * 2)


def test_surplus_positives_are_left_out_and_count_in_no_share():
    """The paper's composition: of each group the first positive and every negative."""
    batch = make.batch([0, 1, 1, 1, 0, 1, 1], [0, 0, 0, 0, 1, 1, 2], [1] * 7)
    out = topr.advantages(topr.Config(positives_per_group=1), batch)
    assert out.keep_B.tolist() == [True, True, False, False, True, True, True]
    assert out.stats["positive_fraction"] == pytest.approx(3 / 5)
    chosen = topr.advantages(topr.Config(positives_per_group=1, effective_positive=0.2), batch)
    assert chosen.stats["effective_positive_fraction"] == pytest.approx(0.2)


def test_the_multipliers_sign_chooses_the_taper():
    """A reward of 0.5 is neither of the paper's two; with c = 0.5 the rollout is pushed down, and so it is tapered."""
    out = topr.advantages(topr.Config(baseline=0.5), make.batch([0.6], [0], [1]))
    assert out.adv_N.tolist() == pytest.approx([-0.3])
    given = make.tokens([-3.0], [0], behaviour=[-1.0], adv=out.adv_N.tolist(), share=[1.0])
    assert topr.token_loss(topr.Config(), given)[0].item() == pytest.approx(-math.exp(-2) * -0.3 * -3.0)


@pytest.mark.parametrize(
    ("positive", "c", "share"), [(0.5, 0.8, 0.1), (0.3, 0.5, 0.125), (0.8, 0.9, 0.173913), (0.5, -1.0, 1.0)]
)
def test_effective_positive_fraction_golden(positive, c, share):
    rewards = [1.0] * round(10 * positive) + [0.0] * round(10 * (1 - positive))
    out = topr.advantages(topr.Config(baseline=c), make.batch(rewards, [0] * 10, [1] * 10))
    assert out.stats["effective_positive_fraction"] == pytest.approx(share, abs=1e-6)
    assert out.stats["positive_fraction"] == pytest.approx(positive)


@pytest.mark.parametrize(("positive", "c"), [(0.1, -0.2273), (0.3, 0.4167), (0.5, 0.7), (0.9, 0.9615)])
def test_baseline_for_a_wanted_composition_golden(positive, c):
    assert topr.baseline_for(positive, 0.15) == pytest.approx(c, abs=5e-5)
    rewards = [1.0] * round(10 * positive) + [0.0] * round(10 * (1 - positive))
    out = topr.advantages(topr.Config(effective_positive=0.15), make.batch(rewards, [0] * 10, [2] * 10))
    assert out.stats["effective_positive_fraction"] == pytest.approx(0.15)


@pytest.mark.parametrize("reward", [0.0, 1.0])
def test_a_batch_of_one_kind_keeps_the_fixed_baseline(reward):
    out = topr.advantages(topr.Config(effective_positive=0.15), make.batch([reward] * 2, [0, 0], [1, 1]))
    assert out.adv_N.tolist() == [2 * reward - 1] * 2
    assert out.keep_B.tolist() == [True, True]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"effective_positive": 1.0}, "effective_positive = 1.0: must be a number at least 0 and below 1"),
        ({"negative": (1.0, 0.5)}, "smallest, largest"),
    ],
)
def test_what_cannot_be_meant_is_refused(options, said):
    with pytest.raises(ConfigError, match=said):
        base.load_algorithm(config.AlgorithmChoice(name="topr", options=options))
