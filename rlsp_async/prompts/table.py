"""What is known of each prompt: two numbers and how often it was issued, 20 bytes a prompt in the journal."""

from __future__ import annotations

import struct
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from rlsp_async.errors import DataError

Reals = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]

_ROW = struct.Struct("<ddI")


class Table:
    """N prompts. What `first_N` and `second_N` mean is the selection's."""

    def __init__(self, size: int, first: float, second: float) -> None:
        self.first_N: Reals = np.full(size, first)
        self.second_N: Reals = np.full(size, second)
        self.visits_N: Places = np.zeros(size, np.int64)

    def __len__(self) -> int:
        return len(self.visits_N)

    def visit(self, place: int) -> int:
        """Counts one issue; returns how many there were before."""
        self.visits_N[place] += 1
        return int(self.visits_N[place]) - 1

    def row(self, place: int) -> bytes:
        """What the journal keeps."""
        return _ROW.pack(self.first_N[place], self.second_N[place], self.visits_N[place])

    def restore(self, place: int, row: bytes) -> None:
        """Takes a row back. Raises DataError when it does not fit."""
        if len(row) != _ROW.size or not 0 <= place < len(self):
            raise DataError(
                f"what the journal knows of prompt {place} ({len(row)} bytes) does not fit {len(self)} "
                "prompts: the training split has changed since the run began"
            )
        self.first_N[place], self.second_N[place], self.visits_N[place] = _ROW.unpack(row)

    def not_pending(self, pending: Mapping[int, int]) -> Places:
        """Places of which no group is on its way; all places when there are none."""
        free_N = np.ones(len(self), bool)
        free_N[[place for place in pending if place < len(self)]] = False
        return np.flatnonzero(free_N) if free_N.any() else np.arange(len(self))
