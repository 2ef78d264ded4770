"""Shared maths against hand-computed numbers, and what `check_shapes` refuses."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlsp_async.algos import maths


def test_gae_golden():
    adv = maths.gae(torch.tensor([0.0, 0, 1]), torch.tensor([0.2, 0.4, 0.6]), torch.tensor([3]), 1.0, 0.95)
    torch.testing.assert_close(adv, torch.tensor([0.751, 0.58, 0.4]))


def test_gae_of_ragged_rollouts_is_gae_of_each():
    reward, values = torch.arange(9.0), torch.arange(9.0).flip(0) / 3
    lengths = torch.tensor([2, 4, 3])
    together = maths.gae(reward, values, lengths, 0.9, 0.8)
    alone = [
        maths.gae(r, v, torch.tensor([len(r)]), 0.9, 0.8)
        for r, v in zip(reward.split([2, 4, 3]), values.split([2, 4, 3]), strict=True)
    ]
    torch.testing.assert_close(together, torch.cat(alone))


def test_gae_without_values_and_lambda_one_is_the_reward_to_go():
    reward = torch.tensor([1.0, 2, 3])
    adv = maths.gae(reward, torch.zeros(3), torch.tensor([3]), 1.0, 1.0)
    torch.testing.assert_close(adv, torch.tensor([6.0, 5, 3]))


def test_group_advantages_golden():
    reward, group = torch.tensor([1.0, 0, 0, 1]), torch.zeros(4, dtype=torch.int64)
    with_std = maths.group_advantages(reward, group, True)
    torch.testing.assert_close(with_std, torch.tensor([0.866024, -0.866024, -0.866024, 0.866024]), atol=1e-6, rtol=0)
    torch.testing.assert_close(maths.group_advantages(reward, group, False), torch.tensor([0.5, -0.5, -0.5, 0.5]))


def test_group_advantages_of_one_success_in_eight():
    reward, group = torch.tensor([1.0] + [0.0] * 7), torch.zeros(8, dtype=torch.int64)
    adv = maths.group_advantages(reward, group, True)
    torch.testing.assert_close(adv[:2], torch.tensor([2.474867, -0.353552]), atol=1e-5, rtol=0)


def test_groups_do_not_mix_and_a_flat_group_has_no_signal():
    reward, group = torch.tensor([1.0, 5, 0, 5]), torch.tensor([0, 1, 0, 1])
    torch.testing.assert_close(maths.group_advantages(reward, group, False), torch.tensor([0.5, 0, -0.5, 0]))
    assert maths.has_signal(reward, group).tolist() == [True, False, True, False]


def test_truncated_weight_golden():
    behaviour = torch.zeros(5)
    new = torch.tensor([0.3, 0.6, 1, 3, 7]).log()
    weight = maths.truncated_weight(new, behaviour, 2.0, torch.ones(5, dtype=torch.bool))
    torch.testing.assert_close(weight, torch.tensor([0.3, 0.6, 1, 2, 2]))


def test_kl_estimators():
    logp, reference = torch.tensor([-1.0]), torch.tensor([-1.5])
    assert maths.k2(logp, reference).item() == 0.125
    assert maths.k3(logp, reference).item() == pytest.approx(0.106531, abs=1e-6)


def test_clipped_surrogate_takes_the_worse_side():
    rho, adv = torch.tensor([1.5, 1.5, 0.5, 0.5]), torch.tensor([1.0, -1, 1, -1])
    torch.testing.assert_close(maths.clipped_surrogate(rho, adv, 0.2, 0.2), torch.tensor([-1.2, 1.5, -0.5, 0.8]))


def test_whiten_uses_only_the_mask():
    adv, mask = torch.tensor([1.0, 3, float("nan")]), torch.tensor([True, True, False])
    torch.testing.assert_close(maths.whiten(adv, mask), torch.tensor([-1.0, 1, 0]))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.sampled_from(["token_mean", "seq_mean"]))
def test_shares_sum_to_one(lengths, aggregation):
    assert maths.shares(torch.tensor(lengths), aggregation).sum().item() == pytest.approx(1.0, abs=1e-5)


def test_seq_mean_gives_each_rollout_the_same_weight():
    torch.testing.assert_close(maths.shares(torch.tensor([1, 2]), "seq_mean"), torch.tensor([0.5, 0.25, 0.25]))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_columns_and_back(lengths):
    x = torch.arange(float(sum(lengths)))
    assert torch.equal(maths.from_columns(maths.to_columns(x, torch.tensor(lengths)), torch.tensor(lengths)), x)


# --- shapes that do not fit ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"reward_B": torch.zeros(3), "group_B": torch.zeros(2)}, "group_B has shape [2], and reward_B has [3]"),
        ({"adv_N": torch.zeros(3, 2)}, "adv_N has shape [3, 2], and its name asks for [N]"),
        ({"adv_N": torch.zeros(3), "values_NK": torch.zeros(4, 2)}, "values_NK has shape [4, 2], and adv_N has [3]"),
        ({"adv_N": torch.zeros(3), "old_N": None, "mask_N": torch.zeros(1)}, "mask_N has shape [1], and adv_N has [3]"),
    ],
)
def test_shapes_that_do_not_fit_are_refused_with_the_name_and_both_shapes(tensors, said):
    with pytest.raises(ValueError, match="^" + re.escape(said)):
        maths.check_shapes(**tensors)


def test_shapes_that_fit_are_taken():
    maths.check_shapes(reward_B=torch.zeros(2), adv_N=torch.zeros(3), values_NK=torch.zeros(3, 2), old_N=None)


LONG, SHORT, MASK = torch.zeros(3), torch.zeros(1), torch.ones(3, dtype=torch.bool)
"""A tensor of length 1 is what torch would broadcast in silence."""


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: maths.guard(SHORT, MASK), "x"),
        (lambda: maths.log_ratio(LONG, SHORT, MASK), "other_R"),
        (lambda: maths.ratio(LONG, LONG, MASK[:1]), "mask_R"),
        (lambda: maths.truncated_weight(LONG, SHORT, 2.0, MASK), "other_R"),
        (lambda: maths.interpolated(LONG, LONG, SHORT, MASK), "towards_new_R"),
        (lambda: maths.stat(LONG, MASK[:1]), "mask_R"),
        (lambda: maths.clipped_surrogate(LONG, SHORT, 0.2, 0.2), "adv_R"),
        (lambda: maths.dual_clipped(LONG, SHORT, 3.0), "adv_R"),
        (lambda: maths.k2(LONG, SHORT), "reference_R"),
        (lambda: maths.k3(LONG, SHORT), "reference_R"),
        (lambda: maths.clip_stats(LONG, SHORT, MASK, 0.2, 0.2), "adv_R"),
        (lambda: maths.group_advantages(LONG, SHORT.long(), True), "group_B"),
        (lambda: maths.has_signal(LONG, SHORT.long()), "group_B"),
        (lambda: maths.whiten(LONG, MASK[:1]), "mask_N"),
        (lambda: maths.explained_variance(LONG, SHORT), "values_N"),
        (lambda: maths.gae(LONG, SHORT, torch.tensor([3]), 1.0, 1.0), "values_N"),
        (lambda: maths.gae(LONG, LONG, torch.tensor([2]), 1.0, 1.0), "x_N"),
        (lambda: maths.vtrace(LONG, LONG, SHORT, torch.tensor([3]), gamma=1.0, lam=1.0, cap=1.0), "rho_N"),
        (lambda: maths.from_columns(LONG[:, None], torch.tensor([3, 3])), "length_B"),
        (lambda: maths.rollout_sums(LONG, SHORT.long(), MASK), "rollout_R"),
        (lambda: maths.rollout_means(LONG, SHORT.long(), MASK), "rollout_R"),
        (lambda: maths.rollout_ratio(LONG, LONG, SHORT.long(), MASK), "rollout_R"),
    ],
)
def test_every_function_names_the_argument_whose_length_is_wrong(call, name):
    with pytest.raises(ValueError, match=f"^{name} has shape"):
        call()
