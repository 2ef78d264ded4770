"""The curriculum: what is wanted when, exact propensities, unknown prompts first, the same draws after a restart."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlsp_async.config import PromptsConfig
from rlsp_async.errors import ConfigError
from rlsp_async.prompts.base import load_selector
from rlsp_async.prompts.curriculum import Config, Curriculum, compute_weights, target_rate


def test_the_wanted_rate_moves_and_then_stays():
    cfg = Config(start=0.8, end=0.3, ramp=10)
    assert [round(target_rate(cfg, cursor), 9) for cursor in (0, 5, 10, 99)] == [0.8, 0.55, 0.3, 0.3]


def test_weights_by_hand():
    cfg = Config(width=0.2, floor=0.1)
    found = compute_weights(cfg, np.array([0.5, 0.7, 0.9, 0.0]), np.array([8.0, 8.0, 8.0, 0.0]), 0.5)
    assert found.round(6).tolist() == [1.0, 0.645878, 0.221802, 1.0]


def test_rates_are_averaged():
    curriculum = Curriculum(Config(weight=0.25), 0, 3)
    curriculum.observe(1, 8, 8)
    curriculum.observe(1, 4, 8)
    assert curriculum.table.first_N[1] == 0.875
    assert curriculum.table.second_N[1] == 16


def trained(cfg: Config, size: int = 11, seed: int = 5) -> Curriculum:
    """Prompt i is solved i times of ten."""
    curriculum = Curriculum(cfg, seed, size)
    for index in range(size):
        curriculum.observe(index, index, 10)
    return curriculum


def test_easy_prompts_come_first_and_hard_ones_later():
    curriculum = trained(Config(start=0.9, end=0.1, ramp=1000, width=0.1, floor=0.01))
    early = Counter(curriculum.draw(cursor, {}).index for cursor in range(100))
    late = Counter(curriculum.draw(cursor, {}).index for cursor in range(1000, 1100))
    assert early.most_common(1)[0][0] in (8, 9, 10)
    assert late.most_common(1)[0][0] in (0, 1, 2)


@given(st.integers(0, 2**32), st.sets(st.integers(0, 10), max_size=10))
def test_propensities_are_exact(seed: int, pending: set[int]):
    cfg = Config(start=0.5, end=0.5)
    curriculum = trained(cfg, seed=seed)
    draw = curriculum.draw(0, dict.fromkeys(pending, 1))
    free = [index for index in range(11) if index not in pending]
    w = compute_weights(cfg, np.array([index / 10 for index in free]), np.ones(len(free)), 0.5)
    assert draw.index in free
    assert draw.propensity == pytest.approx(w[free.index(draw.index)] / w.mean())


def test_a_restart_from_its_rows_draws_the_same():
    one, two, rows = Curriculum(Config(), 1, 12), Curriculum(Config(), 1, 12), {}
    for cursor in range(50):
        draw = one.draw(cursor, {})
        assert draw == two.draw(cursor, {})
        rows[draw.index] = one.observe(draw.index, cursor % 5, 4 + cursor % 2)
        two = Curriculum(Config(), 1, 12)
        for index, row in rows.items():
            two.restore(index, row)


def test_options_are_checked():
    with pytest.raises(ConfigError, match="width = 0.0: must be a number above 0"):
        load_selector(PromptsConfig(name="curriculum", options={"width": 0.0}), 0, 5)
    with pytest.raises(ConfigError, match="pool = -1: must be a whole number"):
        load_selector(PromptsConfig(name="curriculum", options={"pool": -1}), 0, 5)
