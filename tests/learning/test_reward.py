"""Rewards of a batch of messages, and their metrics."""

import dataclasses

import msgspec
import numpy as np
import pytest

from rlsp_async import config
from rlsp_async.algos import grpo, ppo
from rlsp_async.columns import pack_floats, pack_ints
from rlsp_async.learning import reward, rows
from rlsp_async.messages import Batch, Rollout, Verdict, VerifiedGroup
from tests.learning.small import group

RNG = np.random.default_rng(0)


def rollout(index, tokens):
    length = len(tokens)
    return Rollout(
        index=index,
        token_ids=pack_ints(tokens),
        logprobs=pack_floats([-1.0] * length),
        versions=pack_ints([0] * length),
        text="so \\boxed{7}",
    )


def made(*groups):
    """Groups of (tokens, parts)."""
    verified = []
    for number, members in enumerate(groups):
        rollouts = [rollout(i, tokens) for i, (tokens, _) in enumerate(members)]
        verdicts = [Verdict(status="correct" if parts["correct"] else "wrong", parts=parts) for _, parts in members]
        verified.append(VerifiedGroup(group=group(number, RNG, rollouts), verdicts=verdicts))
    return rows.read_rows(Batch(stage="rl", step=1, groups=verified))


def of(data, algorithm=None, longest_tokens=48, **section):
    reward_B, _, figures = reward.compute_reward(
        data, config.RewardConfig(**section), algorithm or grpo.Config(), 1, 3, longest_tokens
    )
    return reward_B, figures


def terms_of(data, **section):
    terms = reward.compute_reward(data, config.RewardConfig(**section), grpo.Config(), 1, 3, 48)[1]
    return terms.outcome_B.tolist(), terms.explore_B.tolist(), terms.alpha


def test_the_terms_are_the_reward_without_weights_and_the_clip_is_explorations():
    data = made([([5] * 10, {"correct": 1.0}), ([5] * 50, {"correct": 0.0})])
    outcome, explore, alpha = terms_of(data, explore="len_inv", scale=100.0)
    assert (outcome, explore, alpha) == ([1.0, 0.0], pytest.approx([-10.0, -2.0]), 0.8)
    # .2 * -10 is clipped to -.5: beside a right answer's .8 nothing is hidden
    assert terms_of(data, explore="len_inv", scale=100.0, clip=0.5)[1] == pytest.approx([-2.5, -2.0])
    for section in ({"explore": "none"}, {"explore": "len_inv", "alpha": 1.0}):
        assert terms_of(data, **section) == ([1.0, 0.0], [0.0, 0.0], 1.0)


def test_the_share_of_inverted_pairs_through_the_real_composition():
    # C = 100, alpha .8: right of 10 tokens -1.2, right of 100 .6, wrong of 50 -.4, wrong of 25 -.8
    data = made(
        [([5] * 10, {"correct": 1.0}), ([5] * 50, {"correct": 0.0})],
        [([5] * 100, {"correct": 1.0}), ([5] * 25, {"correct": 0.0})],
    )
    reward_B, figures = of(data, explore="len_inv", scale=100.0)
    np.testing.assert_allclose(reward_B, [-1.2, -0.4, 0.6, -0.8])
    assert figures["inverted_fraction"] == 0.5
    assert of(data, explore="none")[1]["inverted_fraction"] == 0.0
    assert of(data, explore="len_inv", scale="auto", longest_tokens=100)[1]["inverted_fraction"] == 0.0
    assert of(data, ppo.Config(normalize_reward=True), explore="len_inv", scale=100.0)[1]["inverted_fraction"] == 0.5


def test_novelty_is_paid_within_the_group():
    copy = [3, 4, 5, 6, 7]
    data = made(
        [(copy, {"correct": 1.0}), (copy, {"correct": 0.0}), ([9, 8, 7, 6, 5], {"correct": 0.0})],
        [(copy, {"correct": 0.0}), ([3, 4, 5, 6, 9], {"correct": 0.0})],
    )
    reward_B, figures = of(data, explore="novelty", alpha=0.75)
    np.testing.assert_allclose(reward_B, [0.75, 0.0, 0.25, 1 / 6, 1 / 6])
    assert figures["novelty"] == pytest.approx((1 + 2 / 3 + 2 / 3) / 5)


def test_a_missing_or_failed_judge_is_neutral_and_counted():
    data = made(
        [
            ([5] * 4, {"correct": 1.0, "judge": 0.2}),
            ([5] * 4, {"correct": 0.0, "judge": 0.6}),
            ([5] * 4, {"correct": 0.0}),
            ([5] * 4, {"correct": 0.0, "judge": 0.0, "judge_failed": 1.0}),
        ]
    )
    reward_B, figures = of(data, explore="judge", alpha=0.5)
    np.testing.assert_allclose(reward_B, [0.6, 0.3, 0.2, 0.2])
    assert figures["judge_missing"] == 2.0
    assert figures["part_judge"] == pytest.approx(0.4)


def test_without_any_judge_all_are_neutral_and_said_to_be_missing():
    data = made([([5] * 4, {"correct": 1.0}), ([5] * 4, {"correct": 0.0})])
    reward_B, figures = of(data, explore="judge", alpha=0.5)
    np.testing.assert_allclose(reward_B, [0.75, 0.25])
    assert figures["judge_missing"] == 2.0
    assert "judge_missing" not in of(data, explore="novelty")[1]


def test_the_released_form_takes_a_half_for_a_judge_that_failed():
    data = made([([5] * 4, {"correct": 1.0, "judge": 1.0}), ([5] * 4, {"correct": 1.0})])
    reward_B, figures = of(data, ppo.Config(reward_form="released"), explore="none")
    np.testing.assert_allclose(reward_B, [1.0, 0.9])
    assert figures["judge_missing"] == 1.0


def test_auto_needs_no_number():
    data = made([([5] * 16, {"correct": 1.0}), ([5] * 64, {"correct": 0.0})])
    reward_B, _ = of(data, explore="len_inv", scale="auto", longest_tokens=256)
    np.testing.assert_allclose(reward_B, [0.8 - 0.2 * 34.1333333 / 16, -0.2 * 34.1333333 / 64])


def test_every_form_of_the_settings_is_paid():
    data = made([([5] * 16, {"correct": 1.0, "search_steps": 2.0}), ([6] * 30, {"correct": 0.0, "judge": 0.3})])
    field = {f.name: f.type for f in msgspec.structs.fields(config.RewardConfig)}["explore"]
    for form in field.__args__:
        reward_B, figures = of(data, explore=form, scale="auto")
        assert np.all(np.isfinite(reward_B))
        assert figures["inverted_fraction"] == 0.0


def test_a_fault_costs_the_reward_whatever_the_answer():
    data = made([([5] * 40, {"correct": 1.0}), (list(range(3, 43)), {"correct": 1.0}), ([7] * 3, {"correct": 0.0})])
    reward_B, figures = of(data, penalties=["repetition", "over_long"])
    assert reward_B.tolist() == [-1.0, 1.0, 0.0]
    assert (figures["penalty_repetition"], figures["penalty_over_long"]) == (pytest.approx(1 / 3), 0.0)
    assert (figures["reward"], figures["inverted_fraction"]) == (0.0, 0.5)
    assert terms_of(data, penalties=["repetition"], explore="steps", scale=6.0)[:2] == ([-1.0, 1.0, 0.0], [0.0] * 3)
    cut = dataclasses.replace(data, cut_B=np.array([False, True, False]))
    assert of(cut, penalties=["over_long"])[0].tolist() == [1.0, -1.0, 0.0]
    assert of(cut)[0].tolist() == [1.0, 1.0, 0.0]


def test_rows_say_what_the_limit_ended():
    group_ = VerifiedGroup(
        group=group(
            0,
            RNG,
            [
                msgspec.structs.replace(rollout(0, [5, 6]), finish="length", text="a"),
                msgspec.structs.replace(rollout(1, [5, 6]), text="b"),
            ],
        ),
        verdicts=[Verdict(status="wrong", parts={"correct": 0.0})] * 2,
    )
    data = rows.read_rows(Batch(stage="rl", step=1, groups=[group_]))
    assert (data.cut_B.tolist(), data.texts) == ([True, False], ["a", "b"])


def test_a_replayed_success_is_paid_and_counts_in_no_figure():
    """ARPO: R = (1, 0, 0, 0), and the accuracy of the policy is that of the three rollouts that it drew itself."""
    batch = made([([1, 2], {"correct": 1.0})] + [([1, 2], {"correct": 0.0})] * 3)
    assert batch.own_B.tolist() == [True] * 4
    verified = VerifiedGroup(
        group=group(
            0,
            RNG,
            [msgspec.structs.replace(rollout(0, [1, 2]), replayed_from="9/3")]
            + [rollout(i, [1, 2]) for i in (1, 2, 3)],
        ),
        verdicts=[Verdict(status="correct", parts={"correct": 1.0})]
        + [Verdict(status="wrong", parts={"correct": 0.0})] * 3,
    )
    mixed = rows.read_rows(Batch(stage="rl", step=1, groups=[verified]))
    paid, _, figures = reward.compute_reward(
        mixed, config.RewardConfig(alpha=1.0, explore="none"), grpo.Config(), 1, 10, 100
    )
    assert mixed.own_B.tolist() == [False, True, True, True]
    assert paid.tolist() == [1.0, 0.0, 0.0, 0.0]
    assert figures["part_correct"] == 0.0 == figures["reward"] == figures["reward_std"]
    _, _, before = reward.compute_reward(
        batch, config.RewardConfig(alpha=1.0, explore="none"), grpo.Config(), 1, 10, 100
    )
    assert before["part_correct"] == 0.25 == before["reward"]
