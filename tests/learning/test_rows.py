"""Messages become arrays; batches that must not train are refused."""

import msgspec
import numpy as np
import pytest

from rlsp_async import config
from rlsp_async.algos import grpo, ppo
from rlsp_async.columns import floats, ints
from rlsp_async.errors import MessageError
from rlsp_async.learning import reward, rows
from rlsp_async.messages import Batch, Verdict
from tests.learning.small import demonstration, job, rolled

RNG = np.random.default_rng(0)


def batch(*groups):
    return Batch(stage="rl", step=3, groups=list(groups))


def test_columns_follow_the_manifest():
    groups = [rolled(RNG, 1), rolled(RNG, 2)]
    made = rows.read_rows(batch(*groups))
    rollouts = [r for g in groups for r in g.group.rollouts]
    assert made.sequences.group_B.tolist() == [0] * 4 + [1] * 4
    assert made.sequences.rollout_B.tolist() == [0, 1, 2, 3] * 2
    np.testing.assert_array_equal(made.sequences.behaviour_N, np.concatenate([floats(r.logprobs) for r in rollouts]))
    np.testing.assert_array_equal(made.sequences.responses[5], ints(rollouts[5].token_ids))
    assert made.parts["correct"][0] == 1.0
    assert made.chars_B.tolist() == [3.0] * 8
    assert made.temperature == 1.0


def test_demonstrations_have_no_parts():
    made = rows.read_rows(batch(demonstration(RNG, 1)))
    assert made.parts == {}
    assert made.sequences.versions_N.tolist() == [-1] * len(made.sequences.versions_N)


def test_an_imported_rollout_keeps_its_verdict():
    old = [
        msgspec.structs.replace(demonstration(RNG, n), verdicts=[Verdict(status="wrong", parts={"correct": 0.0})])
        for n in (1, 2)
    ]
    assert rows.read_rows(batch(*old)).parts["correct"].tolist() == [0.0, 0.0]
    with pytest.raises(MessageError, match="mixes rollouts and demonstrations"):
        rows.read_rows(batch(old[0], demonstration(RNG, 3)))


def test_a_verdict_on_the_verifier_never_becomes_reward():
    group = rolled(RNG, 1)
    late = msgspec.structs.replace(group, verdicts=[*group.verdicts[:3], Verdict(status="timeout")])
    with pytest.raises(MessageError, match="timeout"):
        rows.read_rows(batch(late))


def test_missing_verdicts_and_mixed_kinds_are_refused():
    group = rolled(RNG, 1)
    with pytest.raises(MessageError, match="4 rollouts, 3 verdicts"):
        rows.read_rows(batch(msgspec.structs.replace(group, verdicts=group.verdicts[:3])))
    with pytest.raises(MessageError, match="mixes rollouts and demonstrations"):
        rows.read_rows(batch(group, demonstration(RNG, 2)))


def test_each_rollout_keeps_the_temperature_that_drew_it():
    made = rows.read_rows(batch(rolled(RNG, 1, 2, temperature=0.5), rolled(RNG, 2, 3)))
    assert made.sequences.temperature_B.tolist() == [0.5, 0.5, 1.0, 1.0, 1.0]
    same = rows.read_rows(batch(rolled(RNG, 1, temperature=0.5), rolled(RNG, 2, temperature=0.5)))
    assert (same.temperature, same.sequences.temperature_B) == (0.5, None)


def test_a_loss_may_score_them_at_a_temperature_of_its_own():
    drawn = rows.read_rows(batch(rolled(RNG, 1, 2, temperature=0.5), rolled(RNG, 2, 3)))
    assert rows.at_temperature(drawn, 0.0) is drawn
    at_one = rows.at_temperature(drawn, 1.0)
    assert (at_one.temperature, at_one.sequences.temperature_B) == (1.0, None)
    assert at_one.sequences.group_B is drawn.sequences.group_B


def test_a_rollout_without_tokens_is_left_out():
    group = rolled(RNG, 1)
    empty = msgspec.structs.replace(group.group.rollouts[1], token_ids=b"", logprobs=b"", versions=b"")
    rollouts = [group.group.rollouts[0], empty, *group.group.rollouts[2:]]
    inner = msgspec.structs.replace(group.group, rollouts=rollouts)
    assert rows.read_rows(batch(msgspec.structs.replace(group, group=inner))).sequences.rollout_B.tolist() == [0, 2, 3]


def test_columns_of_different_lengths_are_refused():
    group = rolled(RNG, 1)
    short = msgspec.structs.replace(group.group.rollouts[0], logprobs=group.group.rollouts[0].logprobs[:-4])
    inner = msgspec.structs.replace(group.group, rollouts=[short, *group.group.rollouts[1:]])
    with pytest.raises(MessageError, match="differ in length"):
        rows.read_rows(batch(msgspec.structs.replace(group, group=inner)))


def test_reward_and_its_figures():
    made = rows.read_rows(job(1, "rl", 1).batch)
    section = config.RewardConfig(alpha=0.5, alpha_end=1.0, explore="steps", scale=4.0)
    reward_B, terms, figures = reward.compute_reward(
        made, section, grpo.Config(), stage_step=2, num_steps=3, longest_tokens=48
    )
    expected = 0.75 * made.parts["correct"] + 0.25 * (1 - 0.75 ** made.parts["search_steps"])
    np.testing.assert_allclose(reward_B, expected)
    np.testing.assert_allclose(terms.alpha * terms.outcome_B + (1 - terms.alpha) * terms.explore_B, expected, rtol=1e-6)
    assert figures["alpha"] == terms.alpha == 0.75
    assert figures["part_correct"] == pytest.approx(made.parts["correct"].mean())
    assert figures["std_outcome"] == pytest.approx(0.75 * made.parts["correct"].std())
    assert {"reward", "std_explore", "inverted_fraction", "part_search_steps"} <= set(figures)


def test_the_released_form_and_normalised_rewards():
    made = rows.read_rows(job(1, "rl", 1).batch)
    released = ppo.Config(reward_form="released")
    section = config.RewardConfig(explore="len_inv", scale=3.0)
    reward_B, terms, _ = reward.compute_reward(made, section, released, 1, 3, 48)
    assert terms is None
    np.testing.assert_allclose(reward_B, made.parts["correct"] - 3.0 / (3 / 4))
    normal_B, _, _ = reward.compute_reward(made, section, ppo.Config(normalize_reward=True), 1, 3, 48)
    assert (normal_B.mean(), normal_B.std()) == (pytest.approx(0, abs=1e-9), pytest.approx(1, abs=1e-6))
