"""AIME from your own copy: whole numbers from 0 to 999 as answers. The package may not ship the problems.

A file of rows or a directory with splits, with `problem` (or `question`) and `answer`; capitals or not. "073" is 73.
"""

from __future__ import annotations

from rlsp_async.errors import DataError
from rlsp_async.tasks.competition import CompetitionConfig, load_competition, whole_number
from rlsp_async.tasks.readers import Row
from rlsp_async.tasks.row_task import RowTask

EXAMPLE = ("Find the number of positive divisors of $2^{3} \\cdot 5^{2}$.", "12")
Config = CompetitionConfig


def load(cfg: CompetitionConfig, seed: int) -> RowTask:
    """Reads the files. Raises DataError with FILE:LINE for a row that cannot be used."""
    return load_competition("aime", cfg, _answer)


def _answer(row: Row, where: str) -> str:
    text = whole_number(row, where)
    if not (text.isdecimal() and int(text) <= 999):
        raise DataError(f"{where}: the answer {text[:40]!r} is not a whole number from 0 to 999")
    return text
