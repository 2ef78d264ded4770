"""Packing: nothing lost, nothing doubled, nothing too long."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlsp_async.learning import pack


def sequences(lengths):
    """Prompts of p tokens 100, 101, ..; responses of r tokens 200 * number, ..."""
    responses = [np.arange(r, dtype=np.int32) + 200 * n for n, (_, r) in enumerate(lengths)]
    num = sum(r for _, r in lengths)
    return pack.Sequences(
        [np.arange(p, dtype=np.int32) + 100 for p, _ in lengths],
        responses,
        -np.arange(num, dtype=np.float32),
        np.arange(num, dtype=np.int32),
        np.arange(len(lengths)) // 2,
        np.arange(len(lengths)) % 2,
    )


def test_a_row_by_hand():
    made = pack.pack_sequences(sequences([(2, 1), (1, 2)]), [1, 0])
    assert made.ids_T.tolist() == [100, 200, 201, 100, 101, 0]
    assert made.position_ids_T.tolist() == [0, 1, 2, 0, 1, 2]
    assert made.cu_seqlens.tolist() == [0, 3, 6]
    assert made.response_T.tolist() == [False, True, True, False, False, True]
    assert made.source_R.tolist() == [0, 1, 4]
    assert made.target_R.tolist() == [200, 201, 0]
    assert made.flat_R.tolist() == [1, 2, 0]
    assert made.sequence_R.tolist() == [0, 0, 1]
    assert made.num_tokens == 6


def test_equal_sequences_share_a_number():
    ids = [np.array(row, dtype=np.int32) for row in ([5, 6], [7], [5, 6], [5])]
    other = [np.array(row, dtype=np.int32) for row in ([1], [1], [2], [1])]
    assert pack.number_equal(ids).tolist() == [0, 1, 0, 2]
    assert pack.number_equal(ids, other).tolist() == [0, 1, 2, 3]


def test_first_fit_decreasing_by_hand():
    assert pack.plan_micro_batches([3, 6, 4, 5, 2], 10) == [[1, 2], [3, 0, 4]]


def test_a_sequence_longer_than_a_micro_batch_has_one_of_its_own():
    assert pack.plan_micro_batches([3, 11, 7], 10) == [[1], [2, 0]]
    assert pack.plan_micro_batches([3, 6, 4, 5, 2], 10) == [[1, 2], [3, 0, 4]]
    assert pack.plan_micro_batches([6, 3, 6], 10, [0, -1, 0]) == [[0, 2], [1]]


def test_an_empty_response_is_refused():
    with pytest.raises(ValueError, match="response token"):
        pack.pack_sequences(sequences([(2, 0)]), [0])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 20)), min_size=1, max_size=20))
def test_every_token_is_packed_once_and_no_row_is_too_long(lengths):
    given_ = sequences(lengths)
    bins = pack.plan_micro_batches(given_.total_B, 32)
    assert sorted(n for b in bins for n in b) == list(range(len(lengths)))
    rows = [pack.pack_sequences(given_, b) for b in bins]
    assert max(r.num_tokens for r in rows) <= 32
    flat = np.concatenate([r.flat_R for r in rows])
    assert sorted(flat.tolist()) == list(range(len(given_.behaviour_N)))
    for row in rows:
        assert row.ids_T[row.response_T].tolist() == row.target_R.tolist()
        assert row.ids_T[row.source_R + 1].tolist() == row.target_R.tolist()
        assert np.concatenate(given_.responses)[row.flat_R].tolist() == row.target_R.tolist()


def test_what_goes_together_shares_a_micro_batch():
    bins = pack.plan_micro_batches([5, 3, 4, 2, 6], 9, [-1, 7, -1, 7, -1])
    assert sorted(n for members in bins for n in members) == [0, 1, 2, 3, 4]
    assert [b for b in bins if 1 in b] == [b for b in bins if 3 in b]
    assert pack.plan_micro_batches([3, 2], 4, [0, 0]) == [[0, 1]]
