"""Token columns: numpy arrays in memory, raw little-endian bytes on the wire.

A rollout of T tokens has three columns of length T: ids, behaviour log-probs and policy versions. As bytes they are a
third smaller than msgpack lists and ten times cheaper to read (`numpy.frombuffer` copies nothing).

Example: `ints(pack_ints([5, 7])) == array([5, 7], dtype=int32)`.
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
    """Packs whole numbers as little-endian int32 bytes."""
    return np.asarray(values, dtype=_INT).tobytes()


def pack_floats(values: Sequence[float] | npt.NDArray[Any]) -> bytes:
    """Packs real numbers as little-endian float32 bytes."""
    return np.asarray(values, dtype=_FLOAT).tobytes()


def ints(column: bytes) -> Ids:
    """Returns a read-only int32 view [T] of a column. Raises MessageError when its length is no multiple of four."""
    return np.frombuffer(_whole(column), dtype=_INT)


def floats(column: bytes) -> Floats:
    """Returns a read-only float32 view [T] of a column. Raises MessageError when its length is no multiple of four."""
    return np.frombuffer(_whole(column), dtype=_FLOAT)


def num_values(column: bytes) -> int:
    """Returns the number of values in a column, without reading them."""
    return len(column) // 4


def _whole(column: bytes) -> bytes:
    if len(column) % 4:
        raise MessageError(f"a column of {len(column)} bytes is no whole number of 4-byte values")
    return column
