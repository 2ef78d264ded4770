"""RLSP's rewards against the numbers of the paper's Eq. 1 and of the released server."""

import numpy as np
import pytest

from rlsp_async.rewards import compose, explore

LENGTHS = np.array([100.0, 250, 500, 1000, 2000, 4000])


@pytest.mark.parametrize(
    ("correct", "expected"),
    [
        (1.0, [-1.2, 0.0, 0.4, 0.6, 0.7, 0.75]),
        (0.0, [-2.0, -0.8, -0.4, -0.2, -0.1, -0.05]),
    ],
)
def test_eq1_gives_the_papers_rewards(correct, expected):
    right = np.full(6, correct)
    made = compose.compose(right, explore.len_inv(LENGTHS, 1000.0), alpha=0.8, clip=10.0)
    np.testing.assert_allclose(made.reward_B, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("correct", "expected"),
    [
        (1.0, [-9, -3, -1, 0, 0.5, 0.75]),
        (0.0, [-10, -4, -2, -1, -0.5, -0.25]),
    ],
)
def test_the_released_server_pays_five_times_the_length_term(correct, expected):
    made = compose.released(np.full(6, correct), np.ones(6), LENGTHS * 4, 1000.0, 10.0)
    np.testing.assert_allclose(made.reward_B, expected, atol=1e-12)


def test_the_released_server_without_box_at_place_zero_and_with_judge():
    correct, boxed, chars = np.array([0.0, 1.0, 1.0]), np.array([0.0, 1.0, 1.0]), np.array([400.0, 0.0, 4000.0])
    plain = compose.released(correct, boxed, chars, 100.0, 10.0)
    np.testing.assert_allclose(plain.reward_B, [-1.5, 0.0, 0.9])
    judged = compose.released(correct, boxed, chars, 100.0, 10.0, judge_B=np.array([0.5, 0.5, 1.0]))
    np.testing.assert_allclose(judged.reward_B, [0.8 * -1.5 + 0.1, 0.0, 0.8 * 0.9 + 0.2])


def test_without_exploration_alpha_is_one():
    made = compose.compose(np.array([1.0, 0.0]), None, alpha=0.8, clip=10.0)
    np.testing.assert_allclose(made.reward_B, [1.0, 0.0])


def test_rewards_are_clipped():
    made = compose.compose(np.zeros(1), np.array([-1000.0]), alpha=0.8, clip=10.0)
    assert made.reward_B[0] == -10.0


def test_length_forms():
    length = np.array([4.0])
    assert compose.exploration("len_inv", length, length, 10.0)[0] == -2.5
    assert compose.exploration("len_inv_sqrt", length, length, 10.0)[0] == -5.0
    assert compose.exploration("len_exp", length, length, 10.0)[0] == pytest.approx(-10 * np.exp(-2.0))
    assert compose.exploration("none", length, length, 10.0)[0] == 0.0
    with pytest.raises(ValueError, match="long"):
        compose.exploration("long", length, length, 10.0)


def test_steps_reward_grows_and_stays_below_one():
    reward = explore.steps(np.array([0.0, 1.0, 7.0, 500.0]), 20 / 3)
    np.testing.assert_allclose(reward[:3], [0.0, 0.15, 1 - 0.85**7])
    assert reward[3] <= 1.0


def test_alpha_moves_linearly_to_the_last_step():
    assert [compose.scheduled_alpha(0.1, 0.9, s, 5) for s in (1, 3, 5)] == pytest.approx([0.1, 0.5, 0.9])
    assert compose.scheduled_alpha(0.8, -1.0, 3, 5) == 0.8
    assert compose.scheduled_alpha(0.8, 0.2, 1, 1) == 0.8


def test_inverted_pairs():
    reward, correct = np.array([1.0, 0.0, 0.5, 0.2]), np.array([1.0, 1.0, 0.0, 0.0])
    assert compose.inverted_fraction(reward, correct) == 0.5
    assert compose.inverted_fraction(reward, np.ones(4)) == 0.0
    assert compose.inverted_fraction(np.zeros(2), np.array([1.0, 0.0])) == 0.0  # equal pay is not inverted


def test_normalize():
    np.testing.assert_allclose(compose.normalize(np.array([1.0, 3.0]), 10.0), [-1.0, 1.0], atol=1e-6)
    assert np.all(compose.normalize(np.array([2.0, 2.0]), 10.0) == 0.0)
