"""MoPPS: golden beliefs, whom it prefers, pending marks, and the same draws after a restart."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlsp_async.config import PromptsConfig
from rlsp_async.errors import ConfigError, DataError
from rlsp_async.prompts.base import load_selector
from rlsp_async.prompts.mopps import Config, Mopps, nearest_to_target, update_belief


def test_beliefs_of_the_paper_notes():
    cfg = Config(decay=0.5)
    assert update_belief(1.0, 1.0, 2, 8, cfg) == (3.0, 7.0)
    assert update_belief(3.0, 7.0, 2, 8, cfg) == (4.0, 10.0)
    assert update_belief(4.0, 10.0, 6, 8, cfg) == (8.5, 7.5)


@given(st.lists(st.integers(0, 8), min_size=40, max_size=60), st.floats(0.0, 0.9))
def test_what_is_known_is_bounded_when_it_decays(successes: list[int], decay: float):
    cfg = Config(decay=decay)
    a, b = cfg.prior
    for num_correct in successes:
        a, b = update_belief(a, b, num_correct, 8, cfg)
        assert min(a, b) >= 1.0 - 1e-9
        assert a + b <= 2.0 + 8 / (1 - decay) + 1e-9  # the steady state of a + b


def test_without_decay_it_counts():
    cfg = Config(decay=1.0)
    assert update_belief(5.0, 3.0, 1, 8, cfg) == (6.0, 10.0)


def test_the_nearest_wins_and_the_first_of_equal_ones():
    g_CM = np.array([[0.1, 0.4, 0.9], [0.6, 0.6, 0.8], [0.9, 0.5, 0.1]])
    assert nearest_to_target(g_CM, 0.5).tolist() == [1, 2, 1]


def learned(size: int = 30, seed: int = 3) -> Mopps:
    """A third of the prompts never solved, a third always, a third half of the time."""
    mopps = Mopps(Config(decay=1.0), seed, size)
    for index in range(size):
        for _ in range(5):
            mopps.observe(index, (0, 4, 8)[index % 3], 8)
    return mopps


def test_it_prefers_prompts_near_the_target():
    mopps = learned()
    drawn = Counter(mopps.draw(cursor, {}).index % 3 for cursor in range(200))
    assert drawn[1] > 190


def test_what_is_on_its_way_is_not_drawn_again_unless_nothing_else_is_left():
    mopps = Mopps(Config(), 0, 4)
    assert {mopps.draw(cursor, {0: 1, 2: 3, 3: 1}).index for cursor in range(50)} == {1}
    assert {mopps.draw(cursor, dict.fromkeys(range(4), 1)).index for cursor in range(200)} == {0, 1, 2, 3}


def test_propensity_is_one_on_average_and_high_for_the_preferred():
    fresh = Mopps(Config(), 0, 64)
    draws = [fresh.draw(cursor, {}).propensity for cursor in range(300)]
    assert 0.8 < sum(1 / p for p in draws) / 300 < 1.6  # smoothed, so 1 only nearly
    known = learned()
    wanted = [draw.propensity for draw in (known.draw(cursor, {}) for cursor in range(60)) if draw.index % 3 == 1]
    assert sum(wanted) / len(wanted) > 2.0  # a third of the candidates shares nearly all draws


def test_a_restart_from_its_rows_draws_the_same():
    first, rows, cut = Mopps(Config(), 7, 20), {}, 60
    plain = Mopps(Config(), 7, 20)
    pending: Counter[int] = Counter()
    for cursor in range(120):
        if cursor == cut:
            first = Mopps(Config(), 7, 20)
            for index, row in rows.items():
                first.restore(index, row)
        draw = first.draw(cursor, pending)
        assert draw == plain.draw(cursor, pending)
        rows[draw.index] = draw.row
        num_correct = (draw.index * 3 + cursor) % 9
        rows[draw.index] = first.observe(draw.index, num_correct, 8)
        assert plain.observe(draw.index, num_correct, 8) == rows[draw.index]
    assert sum(first.table.visits_N) == 120


def test_visits_count_up():
    mopps = Mopps(Config(), 0, 1)
    assert [mopps.draw(cursor, {}).visit for cursor in range(3)] == [0, 1, 2]


def test_endless_prompts_need_a_pool_and_wrong_options_are_named():
    with pytest.raises(ConfigError, match="options.pool"):
        load_selector(PromptsConfig(name="mopps"), 0, None)
    assert load_selector(PromptsConfig(name="mopps", options={"pool": 9}), 0, None).draw(0, {}).index < 9
    with pytest.raises(ConfigError, match="did you mean 'target'"):
        load_selector(PromptsConfig(name="mopps", options={"targt": 0.5}), 0, 9)
    with pytest.raises(ConfigError, match="target = 1.0: must be a number"):
        load_selector(PromptsConfig(name="mopps", options={"target": 1.0}), 0, 9)
    with pytest.raises(ConfigError, match="did you mean 'mopps'"):
        load_selector(PromptsConfig(name="mops"), 0, 9)
    with pytest.raises(ConfigError, match="empty"):
        load_selector(PromptsConfig(name="mopps"), 0, 0)


def test_a_row_of_other_data_is_refused():
    with pytest.raises(DataError, match="has changed"):
        Mopps(Config(), 0, 3).restore(3, b"\0" * 20)
    with pytest.raises(DataError, match="5 bytes"):
        Mopps(Config(), 0, 3).restore(1, b"12345")
