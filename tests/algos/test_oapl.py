"""OAPL: golden numbers, the square whose gradient it is, and an optimum that does not depend on who sampled."""

import math

import pytest
import torch

from rlsp_async import config
from rlsp_async.algos import base, oapl
from rlsp_async.errors import ConfigError
from tests.algos import given as make


def test_values_golden():
    reward, group = torch.tensor([1.0, 0, 0, 0, 0.5]), torch.tensor([0, 0, 2, 2, 3])
    assert oapl.soft_values(reward, group, 1.0).tolist() == pytest.approx([math.log((math.e + 1) / 2), 0, 0, 0.5])
    assert oapl.soft_values(reward, group, 0.1)[0].item() == pytest.approx(0.930690)
    assert oapl.soft_values(torch.tensor([900.0, -900]), torch.tensor([0, 0]), 1e-3)[0].item() == pytest.approx(900.0)


def test_advantages_golden():
    batch = make.batch([1.0, 0, 1, 1, 1], [0, 0, 1, 1, 2], [1, 2, 1, 1, 1])
    out = oapl.advantages(oapl.Config(beta=1.0), batch)
    assert out.adv_N.tolist() == pytest.approx([0.379885, -0.620115, -0.620115, 0, 0, 0], abs=1e-6)
    assert out.keep_B.tolist() == [True, True, True, True, False]
    assert oapl.advantages(oapl.Config(drop_flat_groups=True), batch).keep_B.tolist() == [
        True,
        True,
        False,
        False,
        False,
    ]
    kimi = base.load_algorithm(config.AlgorithmChoice(name="oapl", preset="kimi"))[1]
    assert oapl.advantages(kimi, batch).adv_N.tolist() == [0.5, -0.5, -0.5, 0, 0, 0]


def test_by_hand():
    """S = .5 + .2 = .7, A = 1: A - beta S = 1 - .5 x .7 = .65."""
    given = make.tokens([-1.0, -2.0], [0, 0], behaviour=[-1.5, -2.2], share=[0.5, 0.5])
    loss, stats = oapl.token_loss(oapl.Config(beta=0.5), given)
    assert make.gradient(loss, given).tolist() == pytest.approx([-0.325, -0.325])
    assert stats["squared_error"].tolist() == pytest.approx([2 * 0.65**2, 2.0])
    assert stats["rollout_log_ratio"].tolist() == pytest.approx([1.4, 2.0])


@pytest.mark.parametrize("beta", [0.1, 2.0])
def test_the_gradient_is_that_of_the_square(beta):
    given = make.replace(make.drawn(), share=torch.full((10,), 0.25))
    square = torch.zeros(())
    for at in make.members(given):
        moved = (given.logp[at] - given.behaviour[at]).sum()
        square = square + 0.25 * (beta * moved - given.adv[at[0]]) ** 2 / (2 * beta)
    expected = make.gradient(square, given)
    torch.testing.assert_close(make.gradient(oapl.token_loss(oapl.Config(beta=beta), given)[0], given), expected)


@pytest.mark.parametrize("start", [[0.05, 0.9, 0.05], [0.2, 0.4, 0.4], [0.98, 0.01, 0.01]])
def test_the_optimum_is_the_tilted_policy_that_sampled_whoever_learns(start):
    """Answer 0 is right. Counts are those of mu, so V is exact: mu e^(R / beta) over its sum."""
    answers, mu, beta = torch.tensor([0, 1, 1, 2, 2]), torch.tensor([0.2, 0.4, 0.4]), 0.5
    adv = oapl.advantages(oapl.Config(beta=beta), make.batch([1.0, 0, 0, 0, 0], [0] * 5, [1] * 5)).adv_N
    logits = torch.tensor(start).log()
    for _ in range(400):
        given = make.tokens(
            logits.log_softmax(0)[answers].tolist(),
            [0, 1, 2, 3, 4],
            behaviour=mu[answers].log().tolist(),
            adv=adv.tolist(),
        )
        grad = make.gradient(oapl.token_loss(oapl.Config(beta=beta), given)[0], given)
        by_answer = torch.zeros(3).index_add(0, answers, grad)
        logits = logits - 1.0 * (by_answer - by_answer.sum() * logits.softmax(0))
    tilted = mu * torch.tensor([math.exp(1 / beta), 1.0, 1.0])
    torch.testing.assert_close(logits.softmax(0), tilted / tilted.sum(), atol=1e-4, rtol=1e-3)


def test_a_price_of_nothing_and_a_second_correction_are_refused():
    with pytest.raises(ConfigError, match="beta = 0.0: must be a number above 0"):
        base.load_algorithm(config.AlgorithmChoice(name="oapl", options={"beta": 0.0}))
    with pytest.raises(ConfigError, match="counts the same ratio twice"):
        base.load_algorithm(config.AlgorithmChoice(name="oapl", options={"corrections": {"weight": "token"}}))
