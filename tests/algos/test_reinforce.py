"""REINFORCE: the plain policy gradient; the baseline of least variance is in test_baselines.py."""

import pytest

from rlsp_async.algos import reinforce
from tests.algos import given as make


def test_by_hand():
    given = make.tokens([-0.7], [0], adv=[-2.0])
    loss, stats = reinforce.token_loss(reinforce.Config(), given)
    assert loss.item() == pytest.approx(-1.4)
    assert make.gradient(loss, given).item() == pytest.approx(2.0)
    assert stats == {}


def test_a_groups_mean_is_the_baseline():
    out = reinforce.advantages(reinforce.Config(), make.batch([1.0, 0, 1, 1], [0, 0, 1, 1], [2, 1, 1, 1]))
    assert out.adv_N.tolist() == [0.5, 0.5, -0.5, 0.0, 0.0]
    assert out.keep_B.tolist() == [True, True, False, False]
