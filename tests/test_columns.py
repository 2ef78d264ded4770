"""Columns: numbers as little-endian bytes and back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlsp_async.columns import floats, ints, num_values, pack_floats, pack_ints
from rlsp_async.errors import MessageError


def test_the_bytes_are_little_endian_whatever_the_machine():
    assert pack_ints([1, -1]) == b"\x01\x00\x00\x00\xff\xff\xff\xff"
    assert pack_floats([-0.5]) == b"\x00\x00\x00\xbf"
    assert num_values(pack_ints([5, 7, 2])) == 3
    assert pack_ints([]) == b""


@given(st.lists(st.integers(-(2**31), 2**31 - 1)))
def test_ids_come_back(values):
    assert ints(pack_ints(values)).tolist() == values


@given(st.lists(st.floats(width=32, allow_nan=False)))
def test_log_probs_come_back(values):
    assert floats(pack_floats(values)).tolist() == values


def test_a_column_is_a_view_that_nobody_can_write():
    column = ints(pack_ints([1, 2]))
    assert column.dtype == np.int32
    with pytest.raises(ValueError, match="read-only"):
        column[0] = 3


@pytest.mark.parametrize("read", [ints, floats])
def test_half_a_value_is_refused(read):
    with pytest.raises(MessageError, match="a column of 6 bytes is no whole number of 4-byte values"):
        read(b"123456")
