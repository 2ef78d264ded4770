"""The dominance condition, against numbers worked out by hand and against the reward itself."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlsp_async.config import RewardConfig
from rlsp_async.rewards.dominance import SHAPES, dominance


def test_the_papers_setting() -> None:
    found = dominance(RewardConfig(alpha=0.8, explore="len_inv", scale=1000.0), 256, 4096)
    assert found is not None
    assert found.shortest_safe_tokens == pytest.approx(235.9, abs=0.5)
    assert found.holds
    assert found.largest_scale == pytest.approx(0.8 * 256 / (0.2 * (1 - 256 / 4096)))


def test_the_papers_scale_breaks_short_answers() -> None:
    found = dominance(RewardConfig(alpha=0.8, explore="len_inv", scale=1000.0), 16, 256)
    assert found is not None
    assert not found.holds


def test_steps_ask_only_for_alpha_above_a_half() -> None:
    low, high = (dominance(RewardConfig(alpha=a, explore="steps"), 16, 256) for a in (0.5, 0.51))
    assert low is not None
    assert high is not None
    assert (low.holds, high.holds) == (False, True)


def test_the_smaller_end_of_a_schedule_counts() -> None:
    found = dominance(RewardConfig(alpha=0.9, alpha_end=0.2, explore="len_inv", scale=20.0), 16, 256)
    assert found is not None
    assert found.alpha == 0.2


def test_correctness_alone_needs_no_condition() -> None:
    assert dominance(RewardConfig(alpha=1.0, explore="len_inv"), 16, 256) is None
    assert dominance(RewardConfig(explore="none"), 16, 256) is None


@given(st.sampled_from(sorted(SHAPES)), st.floats(0.05, 0.95), st.floats(0.1, 5000.0), st.integers(32, 8192))
def test_the_boundary_is_where_a_right_answer_ties_with_the_longest_wrong_one(
    name: str, alpha: float, scale: float, longest: int
) -> None:
    found = dominance(RewardConfig(alpha=alpha, explore=name, scale=scale), 1, longest)  # type: ignore[arg-type]
    assert found is not None
    f, _ = SHAPES[name]

    def beats(length: float) -> bool:
        return alpha - (1 - alpha) * scale * f(length) > -(1 - alpha) * scale * f(longest)

    safe = found.shortest_safe_tokens
    assert beats(max(1.0, safe * 1.01))
    assert safe == 0.0 or not beats(safe * 0.99)
    assert found.largest_scale == math.inf or found.holds == (scale < found.largest_scale or safe <= 1)
