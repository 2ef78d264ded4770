"""The baseline of least variance: golden numbers, and the baseline of gradients taken one rollout at a time."""

import pytest
import torch

from rlsp_async import config
from rlsp_async.algos import base, baselines, maths, reinforce
from rlsp_async.algos.corrections import CorrectionsConfig
from tests.algos import given as make


def given(reward, group, length, energy, **columns):
    num = sum(length)
    return make.batch(reward, group, length, **{"old_N": torch.zeros(num), "energy_N": torch.tensor(energy), **columns})


def test_golden():
    batch = given([1.0, 0], [0, 0], [1, 1], [0.3, 0.1])
    assert baselines.minimum_variance_baseline(reinforce.Config(), batch).tolist() == pytest.approx([0.75, 0.75])
    weighted = reinforce.Config(corrections=CorrectionsConfig(weight="token"))
    batch = given([1.0, 0], [0, 0], [1, 1], [0.3, 0.1], old_N=torch.tensor([1.0, 2.0]).log())
    assert baselines.minimum_variance_baseline(weighted, batch).tolist() == pytest.approx([0.3 / 0.7, 0.3 / 0.7])


def test_a_rollouts_length_counts_as_its_loss_counts_it():
    """Two equal tokens against one: twice the square in a mean over tokens, half of it in a mean of rollouts' means."""
    batch = given([1.0, 0], [0, 0], [2, 1], [0.2, 0.2, 0.2])
    for aggregation, expected in (("token_mean", 2 / 3), ("seq_mean", 0.5 / 1.5)):
        cfg = reinforce.Config(aggregation=aggregation)
        assert baselines.minimum_variance_baseline(cfg, batch)[0].item() == pytest.approx(expected)


def test_without_any_gradient_it_is_the_mean():
    batch = given([1.0, 0, 0.5, 1], [0, 0, 1, 1], [1, 1, 1, 1], [0.0, 0.0, 0.2, 0.0])
    assert baselines.minimum_variance_baseline(reinforce.Config(), batch).tolist() == [0.5, 0.5, 0.5, 0.5]


@pytest.mark.parametrize("weight", ["none", "token", "rollout"])
@pytest.mark.parametrize("aggregation", ["token_mean", "seq_mean"])
def test_it_is_that_of_gradients_one_rollout_at_a_time(weight, aggregation):
    """The policy is a table of logits with a row for each token, so that gradients by the logits are whole
    gradients."""
    g = torch.Generator().manual_seed(4)
    length, group, reward = [3, 1, 2, 2], [0, 0, 1, 0], [1.0, 0.0, 0.3, 0.5]
    logits, chosen = torch.randn(8, 5, generator=g), torch.randint(5, (8,), generator=g)
    masked = torch.arange(8) != 1
    logp = logits.log_softmax(1)
    old, prob = logp.gather(1, chosen[:, None]).squeeze(1), logp.exp()
    behaviour = old + 0.3 * torch.randn(8, generator=g)
    energy = 1 - 2 * old.exp() + prob.square().sum(1)
    batch = given(reward, group, length, energy.tolist(), old_N=old, behaviour_N=behaviour, mask_N=masked)
    cfg = reinforce.Config(aggregation=aggregation, corrections=CorrectionsConfig(weight=weight))
    share, first, squares = maths.shares(batch.length_B, aggregation), 0, []
    for num in length:
        at = slice(first, first + num)
        table = logits[at].clone().requires_grad_()
        mine = table.log_softmax(1).gather(1, chosen[at, None]).squeeze(1)
        ratios = (old - behaviour)[at].exp()
        factor = {
            "none": torch.ones(num),
            "token": ratios.clamp(max=2.0),
            "rollout": ratios[masked[at]].prod().clamp(max=5.0).expand(num),
        }[weight]
        grad = torch.autograd.grad((share[at] * factor * mine)[masked[at]].sum(), table)[0]
        squares.append(grad.square().sum().item())
        first += num
    found = baselines.minimum_variance_baseline(cfg, batch).tolist()
    for i, own in enumerate(group):
        members = [j for j in range(4) if group[j] == own]
        best = min(
            (b / 1000 for b in range(1001)), key=lambda b: sum(squares[j] * (reward[j] - b) ** 2 for j in members)
        )
        assert found[i] == pytest.approx(best, abs=6e-4)


def test_reinforce_takes_it_and_says_how_far_it_moved():
    cfg = base.load_algorithm(config.AlgorithmChoice(name="reinforce", preset="vcpo"))[1]
    assert reinforce.needs(cfg) == {"energy"}
    out = reinforce.advantages(cfg, given([1.0, 0], [0, 0], [2, 1], [0.3, 0.3, 0.2]))
    assert out.adv_N.tolist() == pytest.approx([0.25, 0.25, -0.75])
    assert out.stats["baseline_shift"] == pytest.approx(0.25)
    assert reinforce.needs(reinforce.Config()) == frozenset()


def test_with_the_standard_deviation_the_baseline_is_the_same():
    plain, divided = (
        reinforce.advantages(
            reinforce.Config(baseline="minimum_variance", divide_by_std=by_std),
            given([1.0, 0], [0, 0], [1, 1], [0.3, 0.1]),
        ).adv_N
        for by_std in (False, True)
    )
    torch.testing.assert_close(divided, plain / (0.5**0.5 + 1e-6))
