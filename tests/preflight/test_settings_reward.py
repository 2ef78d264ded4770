"""What `rlsp check` says of rewards, and that it is true of the rewards themselves."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlsp_async.config import RewardConfig
from rlsp_async.errors import ConfigError
from rlsp_async.preflight.settings import (
    describe_condition,
    missing_parts,
    refuse_reward,
    reward_condition,
    reward_warnings,
)
from rlsp_async.rewards import compose
from rlsp_async.rewards.dominance import resolved_scale, shortest

FORMS = ("len_inv", "len_inv_sqrt", "len_exp", "steps", "judge", "novelty")


@pytest.mark.parametrize(
    ("reward", "longest", "expected"),
    [
        (RewardConfig(explore="len_inv", scale="auto"), 256, 34.133333333),
        (RewardConfig(explore="len_inv", scale="auto"), 4096, 546.1333333),
        (RewardConfig(explore="len_inv", scale="auto", alpha_end=0.5), 256, 8.533333333),
        (RewardConfig(explore="len_inv_sqrt", scale="auto"), 256, 10.666666667),
        (RewardConfig(explore="len_exp", scale="auto"), 256, 109.1969674),
        (RewardConfig(explore="steps", scale="auto"), 256, 6.666666667),
        (RewardConfig(explore="len_inv", scale="auto"), 1, 1.0),
        (RewardConfig(explore="len_inv", scale="auto", alpha=0.0), 256, 0.0),
        (RewardConfig(explore="len_inv", scale=1000.0), 256, 1000.0),
    ],
)
def test_auto_is_half_the_largest_safe_scale(reward, longest, expected):
    assert resolved_scale(reward, longest) == pytest.approx(expected, rel=1e-6)


def test_auto_of_the_released_form():
    # a = b = 1: C < 1 / (1/16 - 1/256) = 17.07
    assert resolved_scale(RewardConfig(explore="len_inv", scale="auto"), 256, released=True) == pytest.approx(
        8.533333333
    )


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=20, deadline=None)
@given(st.floats(0.05, 0.95), st.sampled_from([0.5, 3.0, 40.0, 1000.0, "auto"]), st.sampled_from([32, 256, 4096]))
def test_no_warning_means_no_inverted_pair_and_a_warning_means_one(form, alpha, scale, longest):
    scale = 6.0 if form == "steps" and scale == 0.5 else scale
    reward = RewardConfig(alpha=alpha, explore=form, scale=scale, clip=1e9)
    condition = reward_condition(reward, longest, released=False)
    # The worst pair there is: a right answer that explores least beside a wrong one that explores most.
    lengths = np.array([shortest(longest), longest], dtype=float)
    if form in ("judge", "novelty"):
        explored = np.array([0.0, 1.0])
    else:
        explored = compose.exploration(form, lengths, np.array([0.0, 1e9]), resolved_scale(reward, longest))
    correct = np.array([1.0, 0.0])
    made = compose.compose(correct, explored, alpha, reward.clip)
    inverted = compose.inverted_fraction(made.reward_B, correct) == 1.0
    close = abs(made.reward_B[0] - made.reward_B[1]) < 1e-6
    assert close or inverted != condition.holds
    said = [text for text in reward_warnings("x", reward, longest, released=False) if "can beat" in text]
    assert bool(said) != condition.holds


def test_the_papers_two_forms():
    reward = RewardConfig(explore="len_inv", scale=1000.0)
    assert reward_condition(reward, 4096, released=False).shortest_safe_tokens == pytest.approx(235.62, abs=0.01)
    assert reward_condition(reward, 4096, released=True).shortest_safe_tokens == pytest.approx(803.77, abs=0.01)
    assert describe_condition(reward, 4096, released=True) == (
        "from 804 tokens on",
        "the dominance condition is BROKEN for answers of 256 to 4096 tokens; reward.scale (C) = "
        "1000, bound C < 273.1 in the released form",
    )


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (
            RewardConfig(explore="len_inv", scale=1000.0),
            "r: a wrong answer can beat a right one: a correct answer shorter than 126 tokens scores below a wrong one of 256; "
            "lower scale below 68.27 or raise alpha",
        ),
        (
            RewardConfig(explore="novelty", alpha=0.4),
            "r: a wrong answer can beat a right one: novelty can pay a wrong answer 1 - alpha, being right pays alpha = 0.4; "
            "raise alpha above 0.5",
        ),
        (RewardConfig(explore="judge", alpha=0.9, alpha_end=0.3), "being right pays alpha = 0.3"),
        (RewardConfig(explore="len_inv", scale="auto", alpha=0.0), "raise alpha above 0, or name a number"),
        (RewardConfig(explore="len_inv", scale=0.0), 'or say explore = "none"'),
    ],
)
def test_warnings(reward, message):
    found = reward_warnings("r", reward, 256, released=False)
    assert len(found) == 1
    assert message in found[0]
    assert "\n" not in found[0]


@pytest.mark.parametrize(
    "reward",
    [
        RewardConfig(),
        RewardConfig(alpha=1.0, explore="judge"),
        RewardConfig(explore="novelty"),
        RewardConfig(explore="len_inv", scale="auto"),
    ],
)
def test_no_warning(reward):
    assert reward_warnings("r", reward, 256, released=False) == []


def test_what_a_form_needs():
    assert "sampling.rollouts is 1" in missing_parts("r", RewardConfig(explore="novelty"), 1, "")[0]
    assert "verifier 'math' gives none" in missing_parts("r", RewardConfig(explore="judge"), 8, "math")[0]
    assert "the verifier of the task gives none" in missing_parts("r", RewardConfig(explore="judge"), 8, "")[0]
    for verifier in ("judge", "mine.effort", "./effort.py"):
        assert missing_parts("r", RewardConfig(explore="judge"), 8, verifier) == []


def test_the_released_form_pays_length_alone():
    with pytest.raises(ConfigError, match=r"stages.rl.reward.explore = 'judge'.*reward_form"):
        refuse_reward("stages.rl.reward", RewardConfig(explore="judge"), released=True)
    refuse_reward("stages.rl.reward", RewardConfig(explore="len_inv"), released=True)
    refuse_reward("stages.rl.reward", RewardConfig(explore="judge"), released=False)


@pytest.mark.parametrize(
    ("explore", "scale"), [("len_inv", -1.0), ("len_inv", float("nan")), ("steps", 0.5), ("len_inv", float("inf"))]
)
def test_a_scale_that_makes_no_sense_is_refused(explore, scale):
    with pytest.raises(ValueError, match="scale"):
        RewardConfig(explore=explore, scale=scale)
