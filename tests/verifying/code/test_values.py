"""The data that crosses between the runner and the checker."""

from __future__ import annotations

import pytest

from rlsp_async.verifying.code.values import pack_value, unpack_value


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        1,
        -(1 << 63),
        1 << 63,
        1 << 5000,
        0.5,
        float("inf"),
        1j,
        "x\u00e9\0",
        b"\xff",
        [],
        [1, [2]],
        (),
        (1, (2,)),
        {1, "a"},
        frozenset({(1, 2)}),
        {(1, 2): {"a": [None]}},
        range(1, 9, 3),
    ],
)
def test_data_comes_back_as_it_went(value: object) -> None:
    back = unpack_value(pack_value(value))
    assert back == value
    assert type(back) is type(value)


def test_what_is_no_data_does_not_cross() -> None:
    with pytest.raises(ValueError, match="a value of the type object"):
        pack_value([object()])


@pytest.mark.parametrize("data", [["?"], [], [1], ["s", ["l"]], ["i", "x"], ["d", [1]], ["c", 1, 2], ["r", 1]])
def test_rubbish_is_refused(data: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        unpack_value(data)
