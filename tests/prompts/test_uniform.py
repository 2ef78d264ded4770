"""Prompt picking: each prompt once a pass, the same order for the same seed."""

from __future__ import annotations

import pytest

from rlsp_async.prompts.uniform import Config, load, pick


def test_each_pass_visits_every_prompt_once():
    for visit in range(3):
        picks = [pick(7, 10, cursor) for cursor in range(visit * 10, visit * 10 + 10)]
        assert sorted(index for index, _ in picks) == list(range(10))
        assert {seen for _, seen in picks} == {visit}


@pytest.mark.parametrize(("size", "pool", "places"), [(None, 0, 6), (None, 3, 3), (5, 0, 5), (5, 3, 3), (2, 3, 2)])
def test_a_pool_is_the_first_prompts(size, pool, places):
    selector = load(Config(pool=pool), 7, size)
    assert sorted({selector.draw(cursor, {}).index for cursor in range(6)}) == list(range(places))


def test_passes_and_seeds_differ_and_repeats_agree():
    orders = {
        (seed, visit): [pick(seed, 50, visit * 50 + i)[0] for i in range(50)] for seed in (0, 1) for visit in (0, 1)
    }
    assert len({tuple(order) for order in orders.values()}) == 4
    assert orders[0, 1] == [pick(0, 50, 50 + i)[0] for i in range(50)]


def test_endless_set_counts_up():
    assert [pick(3, None, cursor) for cursor in (0, 1, 1000)] == [(0, 0), (1, 0), (1000, 0)]


def test_empty_set_and_negative_cursor_are_refused():
    with pytest.raises(ValueError, match="empty"):
        pick(0, 0, 0)
    with pytest.raises(ValueError, match="below 0"):
        pick(0, 5, -1)


def test_the_order_is_a_function_of_seed_size_and_visit_alone():
    """Written down, so that a change of it shows: a run that is resumed must go on with the same order."""
    assert [pick(0, 5, cursor) for cursor in range(10)] == [
        (2, 0),
        (0, 0),
        (4, 0),
        (3, 0),
        (1, 0),
        (4, 1),
        (2, 1),
        (0, 1),
        (1, 1),
        (3, 1),
    ]
    backwards = [pick(0, 5, cursor) for cursor in reversed(range(10))]
    assert backwards[::-1] == [pick(0, 5, cursor) for cursor in range(10)]


def test_a_pool_makes_prompts_come_back():
    endless = load(Config(pool=3), 0, None)
    assert sorted(endless.draw(cursor, {}).index for cursor in range(6)) == [0, 0, 1, 1, 2, 2]
    assert {load(Config(pool=9), 0, 2).draw(cursor, {}).index for cursor in range(9)} == {0, 1}
    assert load(Config(), 0, None).draw(1000, {}).index == 1000
