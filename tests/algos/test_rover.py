"""ROVER: the golden example, the value of the next state, a slow reference."""

import pytest
import torch

from rlsp_async.algos import rover
from tests.algos import given as make


def slow(cfg, given):
    """The loss token by token, targets as python floats."""
    loss = torch.zeros(())
    last = len(given.logp) - 1
    for t in range(last + 1):
        if not given.mask[t]:
            continue
        after = 0.0
        if t < last and given.rollout[t + 1] == given.rollout[t] and given.mask[t + 1]:
            after = cfg.rho * (given.mean[t + 1] - given.old_mean[t + 1]).item()
        target = given.adv[t].item() + cfg.beta * after
        loss = loss + given.share[t] * (cfg.rho * (given.logp[t] - given.old[t]) - target) ** 2
    return loss


@pytest.mark.parametrize("cfg", [rover.Config(), rover.Config(rho=0.3, beta=0.2)])
def test_gradient_is_that_of_a_slow_reference(cfg):
    given = make.drawn()
    loss, _ = rover.token_loss(cfg, given)
    torch.testing.assert_close(loss, slow(cfg, given))
    torch.testing.assert_close(make.gradient(loss, given), make.gradient(slow(cfg, given), given))


def test_golden_example_from_logits():
    """Three words, two tokens; words 0 and 2 were drawn."""
    old = torch.tensor([[0.0, 0, 0], [0, 1, 2]]).log_softmax(-1)
    new = torch.tensor([[0.5, 0, -0.5], [0, 1.5, 1.5]]).log_softmax(-1)
    given = make.tokens(
        [new[0, 0].item(), new[1, 2].item()],
        [0, 0],
        adv=[0.5, 0.5],
        mean=new.mean(-1).tolist(),
        old=[old[0, 0].item(), old[1, 2].item()],
        old_mean=old.mean(-1).tolist(),
    )
    assert (given.logp - given.old).tolist() == pytest.approx([0.418343, -0.391310], abs=1e-5)
    assert (given.mean - given.old_mean).tolist() == pytest.approx([-0.081657, 0.108690], abs=1e-5)
    loss, stats = rover.token_loss(rover.Config(), given)
    assert loss.item() == pytest.approx(0.415333, abs=1e-5)
    assert stats["next_value"].tolist() == pytest.approx([0.108690, 2.0], abs=1e-5)


def test_the_next_value_stays_within_its_rollout():
    given = make.tokens([-1.0, -1.0, -1.0], [0, 0, 1], old=[-1.0] * 3, mean=[5.0, 6.0, 7.0], old_mean=[4.0] * 3)
    assert rover.next_value(given).tolist() == [2.0, 0.0, 0.0]


def test_rewards_are_centred_and_divided_only_in_the_released_form():
    batch = make.batch([1.0, 0, 0, 1], [0] * 4, [1, 2, 1, 1])
    assert rover.advantages(rover.Config(), batch).adv_N.tolist() == [0.5, -0.5, -0.5, -0.5, 0.5]
    released = rover.advantages(rover.Config(**rover.PRESETS["released"]), batch).adv_N
    assert released[0].item() == pytest.approx(0.866024, abs=1e-6)
