"""The exploration rewards: golden values, direction, bounds, and a judge that gives no score."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlsp_async.rewards import compose, explore

LENGTHS = st.lists(st.floats(1, 1e5), min_size=2, max_size=8).map(lambda v: np.array(sorted(v)))
FORMS = ("len_inv", "len_inv_sqrt", "len_exp", "steps")


@pytest.mark.parametrize(
    ("form", "count", "scale", "expected"),
    [
        ("len_inv", 100.0, 1000.0, -10.0),
        ("len_inv", 4000.0, 1000.0, -0.25),
        ("len_inv_sqrt", 100.0, 1000.0, -100.0),
        ("len_inv_sqrt", 2500.0, 10.0, -0.2),
        ("len_exp", 4.0, 10.0, -1.3533528323661270),
        ("len_exp", 25.0, 1.0, -0.006737946999085467),
        ("steps", 0.0, 20 / 3, 0.0),
        ("steps", 1.0, 20 / 3, 0.15),
        ("steps", 7.0, 20 / 3, 0.6794229115625),
        ("steps", 32.0, 20 / 3, 0.9944867761927646),
        ("steps", 3.0, 1.0, 1.0),
    ],
)
def test_golden_values(form, count, scale, expected):
    value = np.array([count])
    assert compose.exploration(form, value, value, scale)[0] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=30, deadline=None)
@given(LENGTHS, st.floats(1, 5000))
def test_more_is_never_paid_less_and_the_bound_holds(form, counts, scale):
    reward = compose.exploration(form, counts, np.floor(counts), scale)
    assert np.all(np.diff(reward) >= 0)
    assert np.all(reward <= (1.0 if form == "steps" else 0.0))
    assert np.all(reward >= (0.0 if form == "steps" else -scale))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=8), st.floats(-1e6, 1e6))
def test_with_alpha_one_exploration_is_nothing(correct, extra):
    right = np.array(correct)
    made = compose.compose(right, np.full(len(right), extra), alpha=1.0, clip=10.0)
    np.testing.assert_array_equal(made.reward_B, right)
    np.testing.assert_array_equal(made.explore_B, np.zeros(len(right)))


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({"judge": 0.25}, 0.25),
        ({"judge": 7.0}, 1.0),
        ({"judge": -1.0}, 0.0),
        ({"judge": 0.0}, 0.0),
        ({"judge": 0.25, "judge_failed": 0.0}, 0.25),
        ({"judge": 0.5, "judge_failed": 1.0}, None),
        ({"judge": float("nan")}, None),
        ({"judge": float("inf")}, None),
        ({"correct": 1.0}, None),
    ],
)
def test_a_judges_score(parts, expected):
    found = explore.judge_score(parts)
    assert (found == expected) if expected is not None else np.isnan(found)


def test_a_missing_judge_is_neutral_within_its_group_and_never_zero():
    nan = float("nan")
    score, group = np.array([0.2, nan, 0.6, nan, nan, 0.9]), np.array([0, 0, 0, 1, 1, 2])
    assert explore.judge(score, group).tolist() == pytest.approx([0.2, 0.4, 0.6, 0.5, 0.5, 0.9])


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.one_of(st.floats(0, 1), st.just(float("nan"))), st.integers(0, 2)), min_size=1), st.randoms()
)
def test_a_judges_scores_do_not_depend_on_the_order(pairs, rng):
    score, group = np.array([s for s, _ in pairs]), np.array([g for _, g in pairs])
    order = list(range(len(pairs)))
    rng.shuffle(order)
    found = explore.judge(score, group)
    assert np.all((found >= 0) & (found <= 1))
    np.testing.assert_allclose(explore.judge(score[order], group[order]), found[order])
