"""RLOO: each rollout against the mean of the others."""

import pytest
import torch

from rlsp_async.algos import rloo
from tests.algos import given as make


def test_advantages_golden():
    out = rloo.advantages(rloo.Config(), make.batch([1.0, 0, 0, 1], [0] * 4, [1, 1, 2, 1]))
    assert out.adv_N.tolist() == pytest.approx([2 / 3, -2 / 3, -2 / 3, -2 / 3, 2 / 3])


def test_advantages_are_those_of_a_slow_reference():
    reward, group, length = [0.3, 1.0, -2.0, 0.5, 0.1], [0, 1, 0, 1, 0], [1, 2, 3, 1, 2]
    expected = []
    for i, n in enumerate(length):
        others = [r for j, r in enumerate(reward) if group[j] == group[i] and j != i]
        expected += [reward[i] - sum(others) / len(others)] * n
    out = rloo.advantages(rloo.Config(), make.batch(reward, group, length))
    assert out.adv_N.tolist() == pytest.approx(expected)


def test_alone_in_its_group_a_rollout_is_left_out():
    out = rloo.advantages(rloo.Config(), make.batch([1.0, 1, 1], [0, 1, 1], [1, 1, 1]))
    assert out.keep_B.tolist() == [False, True, True]
    assert (
        rloo.advantages(
            rloo.Config(drop_flat_groups=True), make.batch([1.0, 1, 1], [0, 1, 1], [1, 1, 1])
        ).keep_B.tolist()
        == [False] * 3
    )


def test_gradient_is_that_of_a_slow_reference():
    given = make.drawn()
    loss, _ = rloo.token_loss(rloo.Config(), given)
    slow = -sum(given.share[t] * given.adv[t] * given.logp[t] for t in range(len(given.logp)) if given.mask[t])
    torch.testing.assert_close(loss, slow)
    torch.testing.assert_close(make.gradient(loss, given), make.gradient(slow, given))
