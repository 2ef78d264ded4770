"""AIME from your own copy: whole numbers from 0 to 999 as answers. The package may not ship the problems.

A file of rows or a directory with splits, with `problem` (or `question`) and `answer`; capitals or not. "073" is 73.
"""

from __future__ import annotations

from pathlib import Path

from rlsp_async.config import Section
from rlsp_async.errors import DataError
from rlsp_async.tasks import competition
from rlsp_async.tasks.base import Split
from rlsp_async.tasks.dataset import TEMPLATE
from rlsp_async.tasks.readers import Row
from rlsp_async.tasks.row_task import Deduplicate, Item, Manner, Rows

EXAMPLE = ("Find the number of positive divisors of $2^{3} \\cdot 5^{2}$.", "12")


class Config(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where your copy is and how the problems are put to the model."""

    path_test: str
    """A file of rows, or a directory with the split `split_test`."""
    path_train: str = ""
    """Other years for training, say. Empty: for evaluation only."""
    split_train: str = "train"
    """Which split of a directory; of no meaning for a file."""
    split_test: str = "test"
    chat: bool = True
    """Put the prompt through the tokenizer's chat template, as a user message."""
    system: str = ""
    """System message; needs chat."""
    template: str = TEMPLATE
    """`{prompt}` is replaced by the problem; everything else stands as it is."""
    deduplicate: Deduplicate = "exact"
    """exact: training rows that equal a test row are removed. near: those with 13 words in a row of one, too."""

    def __post_init__(self) -> None:
        _manner(self)


def load(cfg: Config, seed: int) -> Rows:
    """Reads the files. Raises DataError with FILE:LINE for a row that cannot be used."""
    splits: dict[Split, list[Item]] = {"train": [], "test": []}
    splits["test"] = competition.read_problems(Path(cfg.path_test).expanduser(), cfg.split_test, _answer)
    if cfg.path_train:
        splits["train"] = competition.read_problems(Path(cfg.path_train).expanduser(), cfg.split_train, _answer)
    return Rows("aime", _manner(cfg), splits, deduplicate=cfg.deduplicate)


def _answer(row: Row, where: str) -> str:
    text = competition.whole_number(row, where)
    if not (text.isdecimal() and int(text) <= 999):
        raise DataError(f"{where}: the answer {text[:40]!r} is not a whole number from 0 to 999")
    return text


def _manner(cfg: Config) -> Manner:
    return Manner(template=cfg.template, chat=cfg.chat, system=cfg.system)
