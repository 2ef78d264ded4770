"""AMC 10 and 12 from your own copy: numbers, expressions or the letter of a choice. The package ships no problems.

A file of rows or a directory with splits, with `problem` (or `question`) and `answer`; capitals or not. 142.0 is 142.
For references that are letters set `task.verifier = "choice"`.
"""

from __future__ import annotations

from rlsp_async.tasks.competition import CompetitionConfig, load_competition, whole_number
from rlsp_async.tasks.row_task import RowTask

EXAMPLE = ("What is the value of $\\sqrt{16} + 2^{-1}$?", "4.5")
Config = CompetitionConfig


def load(cfg: CompetitionConfig, seed: int) -> RowTask:
    """Reads the files. Raises DataError with FILE:LINE for a row that cannot be used."""
    return load_competition("amc", cfg, whole_number)
