"""Token columns: numpy arrays on this side, raw little-endian bytes on the wire.

A rollout of T tokens carries three columns of length T: ids, behaviour log-probs and policy versions. As bytes they
are a third smaller than msgpack lists and ten times cheaper to read (`numpy.frombuffer` copies nothing).

Example: `ids(pack_ids([5, 7])) == array([5, 7], dtype=int32)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rlsp_async.errors import MessageError

Ids = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]

_INT = np.dtype("<i4")
_FLOAT = np.dtype("<f4")


def pack_ints(values: Sequence[int] | npt.NDArray[Any]) -> bytes:
    """Whole numbers as little-endian int32 bytes."""
    return np.asarray(values, dtype=_INT).tobytes()


def pack_floats(values: Sequence[float] | npt.NDArray[Any]) -> bytes:
    """Real numbers as little-endian float32 bytes."""
    return np.asarray(values, dtype=_FLOAT).tobytes()


def ints(column: bytes) -> Ids:
    """A read-only int32 view [T] of a column. Raises MessageError when the length is no multiple of four."""
    return np.frombuffer(_whole(column), dtype=_INT)


def floats(column: bytes) -> Floats:
    """A read-only float32 view [T] of a column. Raises MessageError when the length is no multiple of four."""
    return np.frombuffer(_whole(column), dtype=_FLOAT)


def num_values(column: bytes) -> int:
    """How many values a column holds, without reading it."""
    return len(column) // 4


def _whole(column: bytes) -> bytes:
    if len(column) % 4:
        raise MessageError(f"a column of {len(column)} bytes is no whole number of 4-byte values")
    return column
