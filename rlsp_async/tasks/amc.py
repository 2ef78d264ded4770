"""AMC 10 and 12 from your own copy: numbers, expressions or the letter of a choice. The package ships no problems.

A file of rows or a directory with splits, with `problem` (or `question`) and `answer`; capitals or not. 142.0 is 142.
For references that are letters set `task.verifier = "choice"`.
"""

from __future__ import annotations

from pathlib import Path

from rlsp_async.config import Section
from rlsp_async.tasks import competition
from rlsp_async.tasks.base import Split
from rlsp_async.tasks.dataset import TEMPLATE
from rlsp_async.tasks.row_task import Deduplicate, Item, Manner, Rows

EXAMPLE = ("What is the value of $\\sqrt{16} + 2^{-1}$?", "4.5")


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
    splits: dict[Split, list[Item]] = {"train": [], "test": _read(cfg.path_test, cfg.split_test)}
    if cfg.path_train:
        splits["train"] = _read(cfg.path_train, cfg.split_train)
    return Rows("amc", _manner(cfg), splits, deduplicate=cfg.deduplicate)


def _manner(cfg: Config) -> Manner:
    return Manner(template=cfg.template, chat=cfg.chat, system=cfg.system)


def _read(path: str, split: str) -> list[Item]:
    return competition.read_problems(Path(path).expanduser(), split, competition.whole_number)
