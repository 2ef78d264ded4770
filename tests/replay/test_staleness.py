"""Age, reuse and rate, by hand."""

from __future__ import annotations

from rlsp_async.replay.ledger import fresh, is_stale, lag, num_to_admit, returns
from rlsp_async.replay.records import GroupRecord


def group_record(group_id: int, oldest: int, order: int = 0, **fields) -> GroupRecord:
    return GroupRecord(group_id=group_id, stage="rlsp", state="ready", oldest=oldest, newest=9, order=order, **fields)


def test_lag_is_that_of_the_oldest_token():
    assert lag(group_record(1, oldest=4), step=10) == 5  # the newest is version 9: lag 0
    assert not is_stale(group_record(1, oldest=4), 10, max_lag=5)
    assert is_stale(group_record(1, oldest=4), 10, max_lag=4)


def test_demonstrations_never_age():
    assert lag(group_record(1, oldest=-1, provenance="demonstration"), step=1000) == 0


def test_stale_ones_are_never_among_the_fresh():
    ready = [group_record(1, oldest=5), group_record(2, oldest=1), group_record(3, oldest=8), group_record(4, 7)]
    assert [h.group_id for h in fresh(ready, 9, max_lag=4)] == [1, 3, 4]


def test_reuse_ends_by_count_or_by_age():
    assert returns(group_record(1, oldest=8, uses=1), 10, max_lag=4, max_uses=2)
    assert not returns(group_record(1, oldest=8, uses=2), 10, max_lag=4, max_uses=2)
    assert not returns(group_record(1, oldest=4, uses=1), 10, max_lag=4, max_uses=2)


def test_rate_is_bounded_by_slots_and_by_what_the_stage_still_needs():
    assert num_to_admit(alive=3, capacity=8, waiting=3, needed=None) == 5
    assert num_to_admit(alive=3, capacity=8, waiting=3, needed=4) == 1
    assert num_to_admit(alive=8, capacity=8, waiting=8, needed=99) == 0
    assert num_to_admit(alive=3, capacity=8, waiting=3, needed=0) == 0
