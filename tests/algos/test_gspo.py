"""GSPO: one ratio for each rollout, clipped as a whole."""

import math

import pytest
import torch

from rlsp_async.algos import gspo
from tests.algos import given as make


def slow(cfg, given):
    """Eq. 5 rollout by rollout, s_i with its gradient; only for shares that are equal within a rollout."""
    base = given.behaviour if cfg.against == "behaviour" else given.old
    loss = torch.zeros(())
    for numbers in make.members(given):
        s = torch.exp(sum(given.logp[t] - base[t] for t in numbers) / len(numbers))
        adv, weight = given.adv[numbers[0]], sum(given.share[t] for t in numbers)
        loss = loss - weight * torch.minimum(s * adv, s.clamp(1 - cfg.clip_low, 1 + cfg.clip_high) * adv)
    return loss


def even(given):
    """The same tokens with the shares of "seq_mean"."""
    count = torch.stack([((given.rollout == q) & given.mask).sum() for q in given.rollout])
    return make.replace(given, share=1.0 / count)


@pytest.mark.parametrize(
    "cfg",
    [gspo.Config(), gspo.Config(clip_low=0.2, clip_high=0.3), gspo.Config(against="old", clip_low=0.2, clip_high=0.3)],
)
def test_gradient_is_that_of_a_slow_reference(cfg):
    given = even(make.drawn())
    loss, _ = gspo.token_loss(cfg, given)
    torch.testing.assert_close(loss, slow(cfg, given))
    torch.testing.assert_close(make.gradient(loss, given), make.gradient(slow(cfg, given), given))


def test_by_hand():
    """Log-ratios .3 and -.1 have the mean .1; a positive above 1 + clip_high has no gradient, a negative keeps it."""
    columns = {"behaviour": [-1.3, -0.9], "share": [0.5, 0.5]}
    up, down = (make.tokens([-1.0, -1.0], [0, 0], adv=[a, a], **columns) for a in (1.0, -1.0))
    loss, stats = gspo.token_loss(gspo.Config(), up)
    assert loss.item() == pytest.approx(-1.0004)
    assert make.gradient(loss, up).tolist() == [0.0, 0.0]
    assert stats["clip_positive"].tolist() == [2.0, 2.0]
    assert stats["rollout_ratio"].tolist() == pytest.approx([2 * math.exp(0.1), 2.0])
    loss, _ = gspo.token_loss(gspo.Config(), down)
    assert make.gradient(loss, down).tolist() == pytest.approx([0.5 * math.exp(0.1)] * 2)


def test_the_papers_bounds():
    assert (gspo.Config().clip_low, gspo.Config().clip_high, gspo.Config().aggregation) == (3e-4, 4e-4, "seq_mean")


def test_only_against_the_old_policy_is_it_asked_for():
    assert gspo.needs(gspo.Config()) == frozenset()
    assert gspo.needs(gspo.Config(against="old")) == {"old"}
