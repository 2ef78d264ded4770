"""SFT: the likelihood of a demonstration."""

import pytest

from rlsp_async.algos import sft
from tests.algos import given as make


def test_by_hand():
    given = make.tokens([-0.7, -0.1], [0, 0])
    loss, stats = sft.token_loss(sft.Config(), given)
    assert loss.item() == pytest.approx(0.4)
    assert make.gradient(loss, given).tolist() == [-0.5, -0.5]
    assert stats["nll"].tolist() == pytest.approx([0.8, 2.0])


def test_every_demonstration_counts_whatever_its_reward():
    out = sft.advantages(sft.Config(), make.batch([0.0, 1.0], [0, 1], [1, 2]))
    assert out.keep_B.tolist() == [True, True]
