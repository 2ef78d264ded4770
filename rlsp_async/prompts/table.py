"""What a selection remembers about each prompt: two numbers and how often it was issued; 20 bytes in the journal."""

from __future__ import annotations

import struct
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from rlsp_async.errors import DataError

Reals = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

_ROW = struct.Struct("<ddI")


class PromptTable:
    """One row for each of N prompts. The selection decides what `first_N` and `second_N` mean."""

    def __init__(self, size: int, first: float, second: float) -> None:
        self.first_N: Reals = np.full(size, first)
        self.second_N: Reals = np.full(size, second)
        self.visits_N: Indices = np.zeros(size, np.int64)

    def __len__(self) -> int:
        return len(self.visits_N)

    def visit(self, index: int) -> int:
        """Counts one issue of a prompt; returns how often the prompt had been issued before."""
        self.visits_N[index] += 1
        return int(self.visits_N[index]) - 1

    def row(self, index: int) -> bytes:
        """The row of a prompt, for the journal."""
        return _ROW.pack(self.first_N[index], self.second_N[index], self.visits_N[index])

    def restore(self, index: int, row: bytes) -> None:
        """Takes in a row from the journal. Raises DataError when the row does not fit the table."""
        if len(row) != _ROW.size or not 0 <= index < len(self):
            raise DataError(
                f"what the journal knows of prompt {index} ({len(row)} bytes) does not fit {len(self)} "
                "prompts: the training split has changed since the run began"
            )
        self.first_N[index], self.second_N[index], self.visits_N[index] = _ROW.unpack(row)

    def not_pending(self, pending: Mapping[int, int]) -> Indices:
        """The prompts without a pending group, or all prompts when every one of them is pending."""
        free_N = np.ones(len(self), bool)
        free_N[[index for index in pending if index < len(self)]] = False
        return np.flatnonzero(free_N) if free_N.any() else np.arange(len(self))
