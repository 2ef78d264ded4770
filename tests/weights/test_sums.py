"""Sums show which tensors differ, are blind to splits and zeros, and refuse plans that are none."""

from __future__ import annotations

import msgspec
import pytest
import torch

from rlsp_async.errors import WeightsError
from rlsp_async.weights import sums

BIG = 2 * sums.PERIOD + 7
TENSORS = {
    "f": torch.linspace(-3, 3, BIG),
    "b": torch.linspace(-3, 3, BIG).to(torch.bfloat16),
    "i": torch.arange(-5, BIG - 5),
    "scalar": torch.tensor(1.5),
    "empty": torch.zeros(0, 4),
    "mask": torch.tensor([True, False, True]),
    "turned": torch.arange(6.0).reshape(2, 3).t(),
}


def by_hand(tensor: torch.Tensor) -> tuple[int, int]:
    """The formula, number by number."""
    kind = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    x = tensor.contiguous().reshape(-1).view(kind).tolist()
    return sums.signed(sum(x)), sums.signed(sum(v * (1 + i % 65521) for i, v in enumerate(x)))


@pytest.mark.parametrize("name", sorted(TENSORS))
def test_sums_are_those_of_the_formula(name: str) -> None:
    assert sums.sums(TENSORS[name]) == by_hand(TENSORS[name])


def test_sums_that_do_not_fit_wrap_around() -> None:
    assert sums.sums(torch.tensor([2**62, 2**62, 2**62])) == (-(2**62), -(2**63))
    assert sums.signed(2**63) == -(2**63)


@pytest.mark.parametrize("name", ["f", "b", "i"])
@pytest.mark.parametrize("cut", [0, 1, sums.PERIOD, BIG])
def test_s_is_equal_under_split_concatenation_and_zeros(name: str, cut: int) -> None:
    whole = TENSORS[name]
    parts = whole[:cut], whole[cut:]
    s = sums.sums(whole)[0]
    assert sums.signed(sum(sums.sums(part)[0] for part in parts)) == s
    assert sums.sums(torch.cat([*parts, torch.zeros(9, dtype=whole.dtype)]))[0] == s
    assert sums.live_total([*parts, whole[:0]]) == s


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
@pytest.mark.parametrize("seed", range(3))
def test_two_rows_that_change_places_change_w_alone(dtype: torch.dtype, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = (torch.randn(9, 33, generator=generator) * 100).to(dtype)
    swapped = rows[[0, 4, 2, 3, 1, 5, 6, 7, 8]]
    (s, w), (s2, w2) = sums.sums(rows), sums.sums(swapped)
    assert s == s2
    assert w != w2


def test_a_tensor_under_two_names_counts_once() -> None:
    tied = torch.arange(5.0)
    assert sums.live_total([tied, tied, tied.view(5)]) == sums.sums(tied)[0] != 0


def test_a_plan_is_read_as_it_was_written_and_has_one_digest_in_any_order() -> None:
    plan = sums.make_plan(TENSORS.items())
    assert sums.decode(sums.encode(plan)) == plan
    assert [entry.dtype for entry in plan] == ["F32", "BF16", "I64", "F32", "F32", "BOOL", "F32"]
    assert sums.digest(plan) == sums.digest(plan[::-1])
    assert sums.digest(plan)[:5] == "sums:" and len(sums.digest(plan)) == 69
    assert sums.digest(plan) != sums.digest(plan[1:])
    assert sums.differences(plan, TENSORS.items()) == []
    assert sums.total(plan) == sums.live_total(TENSORS.values())


def test_differences_are_named() -> None:
    plan = sums.make_plan(TENSORS.items())
    changed = {**TENSORS, "f": TENSORS["f"].clone(), "scalar": torch.tensor(1.5, dtype=torch.bfloat16)}
    changed["f"][BIG - 1] += 1
    del changed["empty"]
    changed["more"] = torch.zeros(1)
    assert sums.differences(plan, changed.items(), most=9) == [
        "f has other values",
        "scalar is BF16 [], published as F32 []",
        "more is not of this version",
        "empty is missing",
    ]
    assert len(sums.differences(plan, changed.items())) == 3


ENTRY = ["a", "F32", [2], 1, 2]


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (b"nonsense", "no plan"),
        ({"a": 1}, "no plan"),
        ([ENTRY[:4]], "no plan"),
        ([["a", "F32", [2], 1, 2, 3]], "no plan"),
        ([["a", "F32", ["2"], 1, 2]], "no plan"),
        ([["", "F32", [2], 1, 2]], "a name of 0"),
        ([["a", "F33", [2], 1, 2]], "unknown type"),
        ([["a", "F32", [-2], 1, 2]], "impossible shape"),
        ([["a", "F32", [2**30, 2**30], 1, 2]], "impossible shape"),
        ([["a", "F32", [1] * 17, 1, 2]], "impossible shape"),
        ([["a", "F32", [2], 2**63, 2]], "64 bits"),
        ([ENTRY, ENTRY], "twice"),
    ],
)
def test_nonsense_is_refused_in_a_sentence(plan: object, words: str) -> None:
    data = plan if isinstance(plan, bytes) else msgspec.msgpack.encode(plan)
    with pytest.raises(WeightsError, match=words):
        sums.decode(data)


def test_a_plan_that_is_too_long_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sums, "MAX_PLAN_BYTES", 10)
    with pytest.raises(WeightsError, match="longer than 10"):
        sums.decode(sums.encode(sums.make_plan([("abcdefghijk", torch.ones(1))])))


def test_a_type_that_no_file_holds_is_refused() -> None:
    with pytest.raises(WeightsError, match="complex128"):
        sums.make_plan([("a", torch.ones(1, dtype=torch.complex128))])
