"""Novelty within a group: bounds, copies, order, cost."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlsp_async.rewards import novelty


def ids(*values):
    return np.array(values, dtype=np.int32)


def test_golden_values():
    # 4-grams of a: 1234, 2345; of b: 1234, 2349; of c: 7777. Jaccard(a, b) = 1/3.
    found = novelty.group_novelty([ids(1, 2, 3, 4, 5), ids(1, 2, 3, 4, 9), ids(7, 7, 7, 7)])
    np.testing.assert_allclose(found, [2 / 3, 2 / 3, 1.0])


def test_exact_copies_have_none_and_the_others_keep_theirs():
    a, b = ids(1, 2, 3, 4, 5, 6), ids(9, 8, 7, 6, 5, 4)
    assert novelty.group_novelty([a, b, a.copy()]).tolist() == [0.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        ([ids(1)], [0.0]),
        ([ids(1), ids(1)], [0.0, 0.0]),
        ([ids(1), ids(2)], [1.0, 1.0]),
        ([ids(1, 2), ids(1, 2, 3)], [1.0, 1.0]),
        ([ids(0), ids(0, 0)], [1.0, 1.0]),
        ([ids(3, 3, 3, 3), ids(*[3] * 50)], [0.0, 0.0]),
        ([], []),
    ],
)
def test_short_and_repetitive_rollouts(group, expected):
    assert novelty.group_novelty(group).tolist() == expected


def test_groups_do_not_see_each_other():
    a, b = ids(1, 2, 3, 4, 5), ids(6, 7, 8, 9)
    found = novelty.novelty([a, a, a, b], np.array([0, 1, 0, 1]))
    assert found.tolist() == [0.0, 1.0, 0.0, 1.0]


GROUPS = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=12).map(lambda v: ids(*v)), min_size=2, max_size=6)


@settings(max_examples=30, deadline=None)
@given(GROUPS, st.randoms())
def test_bounds_and_the_order_of_the_group_does_not_matter(group, rng):
    found = novelty.group_novelty(group)
    assert np.all((found >= 0) & (found <= 1))
    order = list(range(len(group)))
    rng.shuffle(order)
    np.testing.assert_array_equal(novelty.group_novelty([group[i] for i in order]), found[order])


@settings(max_examples=30, deadline=None)
@given(GROUPS, st.lists(st.integers(0, 3), min_size=1, max_size=12))
def test_another_rollout_never_makes_the_others_newer(group, extra):
    assert np.all(novelty.group_novelty([*group, ids(*extra)])[: len(group)] <= novelty.group_novelty(group))


@settings(max_examples=30, deadline=None)
@given(GROUPS)
def test_it_is_one_minus_the_largest_jaccard_of_the_sets(group):
    sets = [{tuple(r[i : i + 4]) for i in range(max(1, len(r) - 3))} for r in group]
    expected = [1 - max(len(a & b) / len(a | b) for j, b in enumerate(sets) if j != i) for i, a in enumerate(sets)]
    np.testing.assert_allclose(novelty.group_novelty(group), expected)


def test_a_large_group_is_estimated_within_two_percent_and_copies_stay_copies():
    rng = np.random.default_rng(0)
    base = rng.integers(0, 50_000, 4096).astype(np.int32)
    half = np.concatenate([base[:2048], rng.integers(50_000, 90_000, 2048).astype(np.int32)])
    others = [rng.integers(100_000, 150_000, 4096).astype(np.int32) for _ in range(13)]
    found = novelty.group_novelty([base, half, *others, others[0].copy()])
    # 2045 of 4093 + 4093 - 2045 shingles are shared
    assert found[0] == pytest.approx(1 - 2045 / 6141, abs=0.02)
    assert found[2] == found[-1] == 0.0
    assert np.all(found[3:-1] > 0.99)


def test_sixteen_rollouts_of_4096_tokens_cost_little():
    rng = np.random.default_rng(0)
    group = [rng.integers(0, 150_000, 4096).astype(np.int32) for _ in range(16)]
    taken_s = []
    for _ in range(5):
        begin_s = time.process_time()
        novelty.group_novelty(group)
        taken_s.append(time.process_time() - begin_s)
    assert min(taken_s) < 0.05


def test_a_huge_group_is_thinned_to_what_is_affordable():
    rng = np.random.default_rng(0)
    hashes = [novelty.shingles(rng.integers(0, 150_000, 32_768).astype(np.int32)) for _ in range(16)]
    left = novelty.thin_out(hashes)
    assert 0.9 * novelty.MAX_SHINGLES < sum(len(h) for h in left) < 1.1 * novelty.MAX_SHINGLES
    assert all(set(h) >= set(kept) for h, kept in zip(hashes, left, strict=True))
