"""The four selections by hand and by property; rate of reuse and removal, which all of them share."""

from __future__ import annotations

import math
from collections import Counter
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlsp_async.config import StageConfig
from rlsp_async.errors import ConfigError
from rlsp_async.replay.records import GroupRecord
from rlsp_async.replay.selection import prioritised, stratified
from rlsp_async.replay.selection.base import (
    SelectedGroup,
    SelectionConfig,
    groups_above_keep,
    groups_to_evict,
    load_selection,
    num_new_needed,
    num_ready_needed,
)

NAMES = ("fifo", "freshest", "prioritised", "stratified")


def group_record(group_id: int, oldest: int = 0, correct: int = 4, **fields: Any) -> GroupRecord:
    return GroupRecord(
        group_id=group_id,
        stage="rlsp",
        state="ready",
        oldest=oldest,
        newest=9,
        num_correct=correct,
        num_rollouts=8,
        **{"order": group_id, **fields},
    )


def batch(
    name: str, ready: list[GroupRecord], step: int, num: int, seed: int = 0, **options: Any
) -> list[SelectedGroup] | None:
    return load_selection(StageConfig(selection=name, selection_options=options), seed).batch(ready, step, num)


def ids(chosen: list[SelectedGroup] | None) -> list[int]:
    assert chosen is not None
    return [group_record.group_id for group_record, _ in chosen]


def test_fifo_and_freshest_by_hand():
    ready = [
        group_record(1, oldest=5),
        group_record(3, oldest=8),
        group_record(4, oldest=7),
        group_record(2, oldest=8, order=9),
    ]
    assert ids(batch("fifo", ready, 9, 2)) == [1, 3]
    assert ids(batch("freshest", ready, 9, 3)) == [3, 2, 4]


def test_signal_by_hand():
    assert [round(prioritised.group_signal(group_record(1, correct=n), "variance"), 4) for n in (0, 2, 4, 8)] == [
        0,
        0.75,
        1,
        0,
    ]
    assert [round(prioritised.group_signal(group_record(1, correct=n), "advantage"), 4) for n in (0, 2, 4)] == [
        0,
        0.866,
        1,
    ]
    assert prioritised.group_signal(GroupRecord(group_id=1, stage="s", provenance="demonstration"), "variance") == 1.0


def test_exploration_is_a_signal_where_outcomes_are_all_the_same():
    for by in ("variance", "advantage"):
        assert [prioritised.group_signal(group_record(1, correct=n, has_signal=True), by, 0.3) for n in (0, 4, 8)] == [
            0.3,
            1.0,
            0.3,
        ]
        assert prioritised.group_signal(group_record(1, correct=8), by, 0.3) == 0.0
    cfg = prioritised.Config(decay=1.0, floor=0.2)
    assert prioritised.group_weight(cfg, group_record(1, correct=8, has_signal=True), step=10) == pytest.approx(
        0.2 + 0.8 * 0.5
    )


def test_weight_by_hand():
    cfg = prioritised.Config(by="variance", decay=0.5, floor=0.2, exponent=2.0)
    assert prioritised.group_weight(cfg, group_record(1, oldest=7, correct=2), step=10) == pytest.approx(
        0.25 * (0.2 + 0.8 * 0.5625)
    )
    assert prioritised.group_weight(cfg, group_record(1, oldest=9, correct=0), step=10) == pytest.approx(0.2)


def test_prioritised_draws_in_proportion_to_its_weights_and_logs_them():
    ready = [group_record(1, correct=4), group_record(2, correct=0), group_record(3, correct=2)]
    drawn: Counter[int] = Counter()
    for seed in range(4000):
        [one] = batch("prioritised", ready, 1, 1, seed, by="variance", floor=0.25) or []
        drawn[one.record.group_id] += 1
        weight = {1: 1.0, 2: 0.25, 3: 0.8125}[one.record.group_id]
        assert one.propensity == pytest.approx(3 * weight / 2.0625)
    for group_id, weight in ((1, 1.0), (2, 0.25), (3, 0.8125)):
        share = weight / 2.0625
        assert abs(drawn[group_id] / 4000 - share) < 4 * math.sqrt(share * (1 - share) / 4000)


def test_stratified_reaches_the_wanted_share():
    ready = [group_record(i, correct=8 if i % 2 else 0) for i in range(40)]
    chosen = batch("stratified", ready, 1, 10, correct=0.2) or []
    assert sum(one.record.num_correct for one in chosen) == 0.2 * 80
    assert ids(batch("stratified", ready, 1, 3, correct=1.0)) == [1, 3, 5]
    assert ids(batch("stratified", [group_record(1, correct=0), group_record(2, correct=0)], 1, 2, correct=1.0)) == [
        1,
        2,
    ]


def test_stratified_by_hand():
    ready = [
        group_record(1, correct=8),
        group_record(2, correct=0),
        group_record(3, correct=4),
        group_record(4, correct=2),
    ]
    assert ids(batch("stratified", ready, 1, 3, correct=0.5)) == [3, 4, 1]  # .5; then .375 over .25 and .75; then .583
    assert stratified.correct_and_all(GroupRecord(group_id=1, stage="s", num_rollouts=1)) == (1, 1)


@st.composite
def group_records(draw: st.DrawFn) -> list[GroupRecord]:
    return [
        group_record(
            i,
            draw(st.integers(0, 5)),
            draw(st.integers(0, 8)),
            uses=draw(st.integers(0, 2)),
            order=draw(st.integers(0, 9)),
        )
        for i in range(draw(st.integers(1, 12)))
    ]


@given(
    group_records(),
    st.sampled_from(NAMES),
    st.integers(1, 6),
    st.integers(0, 99),
    st.floats(0, 1),
    st.integers(0, 2**32),
)
def test_every_selection_keeps_the_contract(
    ready: list[GroupRecord], name: str, num: int, seed: int, min_new: float, mix: int
):
    chosen = batch(name, ready, 6, num, seed, min_new=min_new)
    quota = num_new_needed(SelectionConfig(min_new=min_new), num)
    enough = len(ready) >= num and sum(not h.uses for h in ready) >= quota
    assert (chosen is not None) == enough
    if chosen is None:
        return
    assert len(set(ids(chosen))) == num
    assert all(one.record in ready and one.propensity > 0 for one in chosen)
    assert sum(not one.record.uses for one in chosen) >= quota
    shuffled = ready[:]
    Random(mix).shuffle(shuffled)
    assert batch(name, shuffled, 6, num, seed, min_new=min_new) == chosen  # a restarted hub finds another order


def test_rate_of_reuse_by_hand():
    ready = [group_record(1, uses=1), group_record(2, uses=1), group_record(3), group_record(4)]
    assert ids(batch("fifo", ready, 1, 2)) == [1, 2]
    assert ids(batch("fifo", ready, 1, 2, min_new=0.5)) == [3, 1]
    assert ids(batch("fifo", ready, 1, 2, min_new=1.0)) == [3, 4]
    assert batch("fifo", ready, 1, 3, min_new=1.0) is None
    assert num_new_needed(SelectionConfig(min_new=0.5), 5) == 3


def test_a_batch_waits_until_min_ready_are_there_or_all_that_is_left():
    cfg = SelectionConfig(min_ready=6)
    assert [num_ready_needed(cfg, 2, left) for left in (9, 3, 2, 1)] == [6, 6, 4, 2]
    assert num_ready_needed(SelectionConfig(), 2, 9) == 2
    ready = [group_record(number) for number in range(1, 6)]
    waiting = load_selection(StageConfig(selection_options={"min_ready": 6}), 0)
    assert waiting.batch(ready, 1, 2, 9) is None
    assert ids(waiting.batch([*ready, group_record(6)], 1, 2, 9)) == [1, 2]
    assert ids(waiting.batch(ready, 1, 2, 2)) == [1, 2]


def test_removal_orders_by_hand():
    ready = [
        group_record(1, oldest=5, uses=1),
        group_record(2, oldest=3, uses=1),
        group_record(3, oldest=4, uses=3),
        group_record(4, oldest=0),
    ]
    for order, first in (("oldest", 1), ("stalest", 2), ("most_used", 3)):
        assert [h.group_id for h in groups_above_keep(SelectionConfig(keep=2, remove=order), ready)] == [first]
        cfg = SelectionConfig(min_new=0.5, remove=order)
        assert [h.group_id for h in groups_to_evict(cfg, ready, 4)] == [first]  # two new ones are wanted, one is there
    assert groups_above_keep(SelectionConfig(), ready) == []
    assert groups_to_evict(SelectionConfig(), ready, 4) == []


def test_unknown_names_and_options_are_refused():
    for stage, words in (
        (StageConfig(selection="freshes"), "did you mean 'freshest'"),
        (StageConfig(selection="fifo", selection_options={"decay": 1}), "unknown key"),
        (
            StageConfig(selection="prioritised", selection_options={"decay": 0.0}),
            "decay = 0.0: must be a number above 0",
        ),
        (StageConfig(selection="fifo", selection_options={"min_new": 2.0}), "min_new"),
        (
            StageConfig(selection="stratified", selection_options={"correct": -1.0}),
            "correct = -1.0: must be a number at least 0",
        ),
    ):
        with pytest.raises(ConfigError, match=words):
            load_selection(stage, 0)
