"""The controller by hand, and whether it holds the entropy of a policy that sharpens."""

import math
from collections import deque

import pytest

from rlsp_async.temperatures import entropy
from tests.temperatures.given import judged


def test_the_target_is_the_mean_of_the_first_groups():
    made = entropy.Entropy(entropy.Config(first=2, rate=0.1), 1.0)
    for logprob in (-1.0, -3.0):
        made.observe(*judged(1.0, [True, True], logprob=logprob))
    assert made.figures() == {"now": 1.0, "entropy_target": 2.0}
    made.observe(*judged(1.0, [True, True], logprob=-1.0))  # half of the target: warmer
    assert made.temperature == pytest.approx(math.exp(0.05))


def test_it_stays_within_its_bounds():
    made = entropy.Entropy(entropy.Config(target=1.0, rate=1.0, low=0.7, high=1.3), 1.0)
    made.observe(*judged(1.0, [True, True], logprob=-0.1))
    assert made.temperature == 1.3
    for _ in range(2):
        made.observe(*judged(1.0, [True, True], logprob=-5.0))
    assert made.temperature == 0.7


def test_a_group_without_tokens_teaches_nothing():
    group, verdicts = judged(1.0, [])
    assert entropy.Entropy(entropy.Config(), 1.0).observe(group, verdicts) == b""


def test_it_holds_the_entropy_of_a_policy_that_sharpens_while_verdicts_come_late():
    made, flying, sharpness = entropy.Entropy(entropy.Config(), 1.0), deque(), 1.0
    for _ in range(2000):
        sharpness *= 1.0002  # the entropy at temperature 1 falls by a third
        flying.append(made.draw(0) / sharpness)
        if len(flying) > 64:
            made.observe(*judged(1.0, [True, True], logprob=-flying.popleft()))
    assert made.temperature / sharpness == pytest.approx(1.0, abs=0.08)
