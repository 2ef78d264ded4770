"""The balance score by hand, and whether the bandit finds the better temperature when verdicts come late."""

from collections import deque
from random import Random

import pytest

from rlsp_async.temperatures import bstar
from tests.temperatures.given import judged


@pytest.mark.parametrize(
    ("texts", "correct", "target", "score"),
    [
        ("abcd", (1, 1, 0, 0), 4, 0.5 * 0.5),
        ("abcd", (1, 1, 1, 1), 4, 1.0),
        ("abcd", (1, 1, 1, 0), 2, 0.75),  # enough are enough: only their share counts
        ("aabb", (1, 1, 0, 0), 2, 0.5 * 0.5),  # copies are one
        ("aaaa", (1, 1, 1, 1), 4, 0.25),
        ("abcd", (0, 0, 0, 0), 4, 0.0),
        ("", (), 4, 0.0),
    ],
)
def test_balance_by_hand(texts, correct, target, score):
    assert bstar.balance_score(list(texts), [bool(right) for right in correct], target) == score


def test_belief_by_hand():
    made = bstar.Bstar(bstar.Config(grid=(0.5, 1.0), target=2, discount=0.5, prior=0.5, prior_groups=1.0), 0)
    made.observe(*judged(0.5, [True, True]))  # bs 1
    made.observe(*judged(1.0, [True, False]))  # bs .25, and half of the first is left
    assert made.sum_A.tolist() == [0.5, 0.25]
    assert made.count_A.tolist() == [0.5, 1.0]
    assert made.mean_A.tolist() == [1.0 / 1.5, 0.75 / 2]
    assert made.figures() == {"score_0.5": 1.0 / 1.5, "score_1": 0.375, "groups_0.5": 0.5, "groups_1": 1.0}


def test_a_temperature_that_is_no_arm_teaches_nothing():
    made = bstar.Bstar(bstar.Config(grid=(0.5, 1.0)), 0)
    assert made.observe(*judged(0.7, [True, True])) == b""
    assert made.count_A.tolist() == [0.0, 0.0]


def share_of_best(success, seed, draws=600, in_flight=64):
    """Of the last half of the draws, those of the arm that is best then; rollouts: 8, all texts different."""
    made, random, flying = bstar.Bstar(bstar.Config(target=4), seed), Random(seed), deque()
    hits = 0
    for cursor in range(draws):
        temperature = made.draw(cursor)
        rates = success(cursor)
        hits += cursor >= draws // 2 and rates[temperature] == max(rates.values())
        flying.append(judged(temperature, [random.random() < rates[temperature] for _ in range(8)]))
        if len(flying) > in_flight:
            made.observe(*flying.popleft())
    return hits / (draws - draws // 2)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_better_arm_is_found_and_found_again_when_it_changes(seed):
    early = {0.6: 0.2, 0.8: 0.3, 1.0: 0.7, 1.2: 0.3}
    late = {0.6: 0.7, 0.8: 0.3, 1.0: 0.2, 1.2: 0.3}
    assert share_of_best(lambda cursor: early, seed) > 0.8
    assert share_of_best(lambda cursor: early if cursor < 200 else late, seed, draws=1000) > 0.7
