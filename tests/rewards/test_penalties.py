"""T1's penalties: by hand, and on honest responses, which must not be penalised."""

import time

import numpy as np
import pytest

from rlsp_async.rewards import penalties


def ids(*values):
    return np.array(values, dtype=np.int32)


@pytest.mark.parametrize(
    ("values", "num", "share"),
    [
        ((1, 2, 1, 2, 1), 2, 0.5),
        ((1, 2, 3, 4, 5), 2, 0.0),
        ((7, 7, 7, 7, 7), 2, 0.75),
        ((1, 2), 3, 0.0),
        ((1, 2, 3), 3, 0.0),
    ],
)
def test_repeated_share_by_hand(values, num, share):
    assert penalties.repeated_share(ids(*values), num) == share


def test_repeated_share_is_that_of_a_slow_reference():
    rng = np.random.default_rng(0)
    for _ in range(50):
        values = rng.integers(0, 3, rng.integers(1, 40)).astype(np.int32)
        runs = [tuple(values[i : i + 4]) for i in range(len(values) - 3)]
        slow = sum(run in runs[:i] for i, run in enumerate(runs)) / len(runs) if runs else 0.0
        assert penalties.repeated_share(values, 4) == pytest.approx(slow)


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("", 0.0),
        ("3 + 5 ?= 9 x\n", 0.0),
        ("na\u00efve \u2192 \u4f60\u597d \u0645\u0631", 0.0),
        ("a\ufffd", 0.5),
        ("\x00\x07ab", 0.5),
        ("a\ue000b\ud800", 0.5),
    ],
)
def test_garbled_share_by_hand(text, share):
    assert penalties.garbled_share(text) == share


def test_faults_and_what_they_cost():
    responses = [ids(*range(40)), ids(*[4, 5] * 20), ids(1, 2, 3)]
    cut_B = np.array([True, False, False])
    texts = ["fine", "fine", "\ufffd\ufffd"]
    found = penalties.find_faults(["repetition", "over_long", "garbled"], responses, texts, cut_B)
    assert {name: fault.tolist() for name, fault in found.items()} == {
        "repetition": [False, True, False],
        "over_long": [True, False, False],
        "garbled": [False, False, True],
    }
    assert penalties.has_fault(found, 3).tolist() == [True, True, True]
    one = penalties.find_faults(["over_long"], responses, texts, cut_B)
    assert penalties.has_fault(one, 3).tolist() == [True, False, False]
    assert penalties.has_fault({}, 2).tolist() == [False, False]


def test_a_long_response_is_cheap():
    values = np.random.default_rng(0).integers(0, 1000, 8192).astype(np.int32)
    begun = time.process_time()
    penalties.repeated_share(values)
    assert time.process_time() - begun < 0.5
