"""Sums of tensors: they show that weights arrived, and that an engine holds them, without a second copy.

    x = the tensor's bytes as integers of its item size (bfloat16: int16, float32: int32), in order
    s = sum x[i]                             equal under any split, concatenation and padding with zeros
    w = sum x[i] * (1 + i mod PERIOD)        differs when values change places

Both are taken modulo 2^64 and written as signed integers. A *plan* lists (name, dtype, shape, s, w) of every tensor of
a version; its digest is "sums:" and the SHA-256 of the encoded plan. The sum of all s is the *total* of a model: fusing
projections and padding a vocabulary leave it as it is, so it can be compared with the live parameters of an engine.
Sums guard against accidents, not against an attacker: they are not cryptographic.

Both sums come from one pass: the integers are laid out in rows of PERIOD columns, and the sums of the columns give s
and w. On the CPU numpy adds the columns (several times faster than torch, which widens every integer first).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import torch

from rlsp_async.errors import WeightsError

PREFIX = "sums:"
PERIOD = 65521
MAX_PLAN_BYTES = 64 * 2**20
"""A longer plan is refused: a model of 10^5 tensors has a plan of about 10 MB."""
MAX_NAME = 1024
MAX_DIMENSIONS = 16
MAX_ELEMENTS = 2**48
_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_WEIGHTS = np.arange(1, PERIOD + 1, dtype=np.int64)
DTYPES: dict[str, torch.dtype] = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3": torch.float8_e4m3fn,
    "I16": torch.int16,
    "U16": torch.uint16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I32": torch.int32,
    "U32": torch.uint32,
    "F32": torch.float32,
    "C64": torch.complex64,
    "F64": torch.float64,
    "I64": torch.int64,
    "U64": torch.uint64,
}
"""Types by their names in safetensors, in the order in which a file holds them, the last ones first."""
NAMES = {dtype: name for name, dtype in DTYPES.items()}


class PlanEntry(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One tensor of a version."""

    name: str
    dtype: str
    """As safetensors names it: "BF16", "F32"."""
    shape: tuple[int, ...]
    s: int
    w: int


Plan = tuple[PlanEntry, ...]


def make_plan(tensors: Iterable[tuple[str, torch.Tensor]]) -> Plan:
    """The plan of named tensors, in their order.

    Args:
        tensors: (name, tensor of any shape, type and device); one is held at a time.

    Returns:
        One entry for each tensor.

    Raises:
        WeightsError: a tensor has a type that no safetensors file holds.
    """
    return tuple(PlanEntry(name, dtype_name(t), tuple(t.shape), *sums(t)) for name, t in tensors)


def sums(tensor: torch.Tensor) -> tuple[int, int]:
    """(s, w) of a tensor of any shape and device; see the module docstring."""
    if tensor.device.type == "cpu":
        return sums_of_integers(_integers(tensor).numpy())
    s, w = on_device(tensor).tolist()
    return s, w


@torch.no_grad()
def on_device(tensor: torch.Tensor) -> torch.Tensor:
    """[s, w] of a tensor as an int64 tensor on its own device: nothing waits for it."""
    x = _integers(tensor)
    full = x.numel() // PERIOD * PERIOD
    columns = x[:full].view(-1, PERIOD).sum(0, dtype=torch.int64)
    columns[: x.numel() - full] += x[full:].to(torch.int64)
    weights = torch.arange(1, PERIOD + 1, dtype=torch.int64, device=x.device)
    return torch.stack([columns.sum(), (columns * weights).sum()])


def _integers(tensor: torch.Tensor) -> torch.Tensor:
    """The bytes of a tensor as flat integers of its item size."""
    flat = tensor.detach().contiguous().reshape(-1)
    if flat.dtype == torch.complex64:
        flat = torch.view_as_real(flat).reshape(-1)
        return flat.view(torch.int64)
    return flat.view(_INTEGERS[flat.element_size()])


def sums_of_integers(x: npt.NDArray[np.signedinteger[Any]]) -> tuple[int, int]:
    """(s, w) of a flat array of integers, which may be a view of a file."""
    full = len(x) // PERIOD * PERIOD
    if not full:
        return sums_of_columns(x.astype(np.int64))
    columns = x[:full].reshape(-1, PERIOD).sum(0, dtype=np.int64)
    columns[: len(x) - full] += x[full:]
    return sums_of_columns(columns)


def sums_of_columns(columns: npt.NDArray[np.int64]) -> tuple[int, int]:
    """(s, w) from the sum of each column, at most PERIOD of them."""
    with np.errstate(over="ignore"):
        weighted = columns * _WEIGHTS[: len(columns)]
        return int(columns.sum()), int(weighted.sum())


def total(plan: Iterable[PlanEntry]) -> int:
    """The sum of all s, modulo 2^64, signed."""
    return signed(sum(entry.s for entry in plan))


def live_total(tensors: Iterable[torch.Tensor]) -> int:
    """The sum of s over the tensors that an engine computes with; two names of one tensor count once."""
    seen: set[tuple[int, tuple[int, ...], str]] = set()
    result = 0
    for tensor in tensors:
        key = (tensor.data_ptr(), tuple(tensor.shape), str(tensor.device))
        if tensor.numel() and key not in seen:
            seen.add(key)
            result += sums(tensor)[0]
    return signed(result)


def signed(value: int) -> int:
    """An integer modulo 2^64, in -2^63 .. 2^63 - 1."""
    value %= 2**64
    return value - 2**64 if value >= 2**63 else value


def digest(plan: Sequence[PlanEntry]) -> str:
    """The digest of a version, as a `WeightsRef` holds it: "sums:" and 64 hexadecimal digits.

    The order of the entries does not matter: they are sorted by name.
    """
    ordered = sorted(plan, key=lambda entry: entry.name)
    return PREFIX + hashlib.sha256(msgspec.msgpack.encode(ordered)).hexdigest()


def encode(plan: Sequence[PlanEntry]) -> bytes:
    """A plan as bytes for a message or a file: a msgpack array of arrays [name, dtype, shape, s, w]."""
    return msgspec.msgpack.encode(list(plan))


def decode(data: bytes) -> Plan:
    """Reads what `encode` wrote.

    Args:
        data: bytes from anywhere.

    Returns:
        The plan.

    Raises:
        WeightsError: the bytes are no plan; one sentence says why.
    """
    if len(data) > MAX_PLAN_BYTES:
        raise WeightsError(f"a plan of {len(data)} bytes is longer than {MAX_PLAN_BYTES}: it is refused")
    try:
        plan = msgspec.msgpack.decode(data, type=tuple[PlanEntry, ...])
    except (msgspec.DecodeError, msgspec.ValidationError, OverflowError) as e:
        raise WeightsError(f"these bytes are no plan of weights: {e}") from e
    for entry in plan:
        if why := _wrong(entry):
            raise WeightsError(f"a plan of weights names {entry.name[:80]!r}, {why}: it is refused")
    if len({entry.name for entry in plan}) != len(plan):
        raise WeightsError("a plan of weights names a tensor twice: it is refused")
    return plan


def differences(plan: Iterable[PlanEntry], tensors: Iterable[tuple[str, torch.Tensor]], most: int = 3) -> list[str]:
    """What of some tensors differs from a plan, in words, at most `most` of it; empty when nothing does.

    Args:
        plan: what was published.
        tensors: what arrived, in any order; one is held at a time.
        most: how many differences are looked for.

    Returns:
        Words for each difference. Example: "model.norm.weight has other values".
    """
    expected = {entry.name: entry for entry in plan}
    found = []
    for name, tensor in tensors:
        entry = expected.pop(name, None)
        if entry is None:
            found.append(f"{name} is not of this version")
        elif (entry.dtype, entry.shape) != (dtype_name(tensor), tuple(tensor.shape)):
            found.append(
                f"{name} is {dtype_name(tensor)} {list(tensor.shape)}, published as {entry.dtype} {list(entry.shape)}"
            )
        elif (entry.s, entry.w) != sums(tensor):
            found.append(f"{name} has other values")
        if len(found) >= most:
            return found
    return (found + [f"{name} is missing" for name in expected])[:most]


def dtype_name(tensor: torch.Tensor) -> str:
    """The name of a tensor's type in safetensors. Raises WeightsError for a type that such a file cannot hold."""
    try:
        return NAMES[tensor.dtype]
    except KeyError:
        raise WeightsError(f"tensors of type {tensor.dtype} cannot be published") from None


def _wrong(entry: PlanEntry) -> str:
    """What is wrong with an entry; empty when nothing is."""
    if not 0 < len(entry.name) <= MAX_NAME:
        return f"a name of {len(entry.name)} characters"
    if entry.dtype not in DTYPES:
        return f"of the unknown type {entry.dtype[:20]!r}"
    if len(entry.shape) > MAX_DIMENSIONS or min(entry.shape, default=0) < 0 or math.prod(entry.shape) > MAX_ELEMENTS:
        return "of an impossible shape"
    if any(not -(2**63) <= value < 2**63 for value in (entry.s, entry.w)):
        return "with a sum of more than 64 bits"
    return ""
