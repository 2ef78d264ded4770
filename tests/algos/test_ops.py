"""Shared maths against hand-computed numbers (papers/core.md section 9 for the golden ones)."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlsp_async.algos import ops


def test_gae_golden():
    adv = ops.gae(torch.tensor([0.0, 0, 1]), torch.tensor([0.2, 0.4, 0.6]), torch.tensor([3]), 1.0, 0.95)
    torch.testing.assert_close(adv, torch.tensor([0.751, 0.58, 0.4]))


def test_gae_of_ragged_rollouts_is_gae_of_each():
    reward, values = torch.arange(9.0), torch.arange(9.0).flip(0) / 3
    lengths = torch.tensor([2, 4, 3])
    together = ops.gae(reward, values, lengths, 0.9, 0.8)
    alone = [
        ops.gae(r, v, torch.tensor([len(r)]), 0.9, 0.8)
        for r, v in zip(reward.split([2, 4, 3]), values.split([2, 4, 3]), strict=True)
    ]
    torch.testing.assert_close(together, torch.cat(alone))


def test_gae_without_values_and_lambda_one_is_the_reward_to_go():
    reward = torch.tensor([1.0, 2, 3])
    adv = ops.gae(reward, torch.zeros(3), torch.tensor([3]), 1.0, 1.0)
    torch.testing.assert_close(adv, torch.tensor([6.0, 5, 3]))


def test_group_advantages_golden():
    reward, group = torch.tensor([1.0, 0, 0, 1]), torch.zeros(4, dtype=torch.int64)
    with_std = ops.group_advantages(reward, group, True)
    torch.testing.assert_close(with_std, torch.tensor([0.866024, -0.866024, -0.866024, 0.866024]), atol=1e-6, rtol=0)
    torch.testing.assert_close(ops.group_advantages(reward, group, False), torch.tensor([0.5, -0.5, -0.5, 0.5]))


def test_group_advantages_of_one_success_in_eight():
    reward, group = torch.tensor([1.0] + [0.0] * 7), torch.zeros(8, dtype=torch.int64)
    adv = ops.group_advantages(reward, group, True)
    torch.testing.assert_close(adv[:2], torch.tensor([2.474867, -0.353552]), atol=1e-5, rtol=0)


def test_groups_do_not_mix_and_a_flat_group_has_no_signal():
    reward, group = torch.tensor([1.0, 5, 0, 5]), torch.tensor([0, 1, 0, 1])
    torch.testing.assert_close(ops.group_advantages(reward, group, False), torch.tensor([0.5, 0, -0.5, 0]))
    assert ops.has_signal(reward, group).tolist() == [True, False, True, False]


def test_truncated_weight_golden():
    behaviour = torch.zeros(5)
    new = torch.tensor([0.3, 0.6, 1, 3, 7]).log()
    weight = ops.truncated_weight(new, behaviour, 2.0, torch.ones(5, dtype=torch.bool))
    torch.testing.assert_close(weight, torch.tensor([0.3, 0.6, 1, 2, 2]))


def test_effective_count_golden():
    assert ops.effective_count(torch.tensor([1, 1, 0.1, 0.1])).item() == pytest.approx(2.396040, abs=1e-5)


def test_kl_estimators():
    logp, reference = torch.tensor([-1.0]), torch.tensor([-1.5])
    assert ops.k1(logp, reference).item() == 0.5
    assert ops.k2(logp, reference).item() == 0.125
    assert ops.k3(logp, reference).item() == pytest.approx(0.106531, abs=1e-6)


def test_clipped_surrogate_takes_the_worse_side():
    rho, adv = torch.tensor([1.5, 1.5, 0.5, 0.5]), torch.tensor([1.0, -1, 1, -1])
    torch.testing.assert_close(ops.clipped_surrogate(rho, adv, 0.2, 0.2), torch.tensor([-1.2, 1.5, -0.5, 0.8]))


def test_whiten_uses_only_the_mask():
    adv, mask = torch.tensor([1.0, 3, float("nan")]), torch.tensor([True, True, False])
    torch.testing.assert_close(ops.whiten(adv, mask), torch.tensor([-1.0, 1, 0]))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.sampled_from(["token_mean", "seq_mean"]))
def test_shares_sum_to_one(lengths, aggregation):
    assert ops.shares(torch.tensor(lengths), aggregation).sum().item() == pytest.approx(1.0, abs=1e-5)


def test_seq_mean_gives_each_rollout_the_same_weight():
    torch.testing.assert_close(ops.shares(torch.tensor([1, 2]), "seq_mean"), torch.tensor([0.5, 0.25, 0.25]))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_columns_and_back(lengths):
    x = torch.arange(float(sum(lengths)))
    assert torch.equal(ops.from_columns(ops.to_columns(x, torch.tensor(lengths)), torch.tensor(lengths)), x)
