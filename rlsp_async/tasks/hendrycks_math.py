"""MATH (Hendrycks et al., arXiv:2103.03874) from your own copy; the package may not ship the problems.

Either the directory as published (MATH/train/algebra/1.json ...) or files of rows with `problem` and `solution`
(.jsonl, .json, .csv, .parquet; MATH-500 is one). The reference is the field `answer`, else the solution's last box.
Demonstrations are the data set's own solutions.
"""

from __future__ import annotations

import re
from pathlib import Path

from rlsp_async.config import Section
from rlsp_async.errors import DataError
from rlsp_async.tasks import competition
from rlsp_async.tasks.base import Split
from rlsp_async.tasks.dataset import TEMPLATE
from rlsp_async.tasks.folders import files_of
from rlsp_async.tasks.readers import Row, read_rows, text_field
from rlsp_async.tasks.row_task import Deduplicate, Item, Manner, Rows

EXAMPLE = ("What is $1+2+\\cdots+10$?", "55")


class Config(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where your copy is and how the problems are put to the model."""

    path_train: str = ""
    """The directory MATH/train, or a file of rows. Empty: for evaluation only."""
    path_test: str
    levels: list[int] = []
    """Only these, of 1 to 5; empty: all."""
    subjects: list[str] = []
    """Only these, e.g. "algebra", "counting_and_probability"; empty: all."""
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
    splits: dict[Split, list[Item]] = {
        "train": _read(cfg, cfg.path_train, "train") if cfg.path_train else [],
        "test": _read(cfg, cfg.path_test, "test"),
    }
    return Rows("hendrycks_math", _manner(cfg), splits, deduplicate=cfg.deduplicate)


def reference(row: Row, where: str) -> str:
    """The answer of a row. Raises DataError when neither field nor box has one."""
    if next(competition.present(row, competition.ANSWER), None):
        return competition.one_of(row, competition.ANSWER, where)
    answer = competition.last_box(competition.one_of(row, competition.SOLUTION, where))
    if not answer:
        raise DataError(f"{where}: has no field 'answer', and no closed \\boxed{{}} in its solution")
    return answer


def _read(cfg: Config, text: str, split: str) -> list[Item]:
    path = Path(text).expanduser()
    folders = [folder for folder in sorted(path.iterdir()) if folder.is_dir()] if path.is_dir() else []
    files = [file for folder in folders for file in sorted(folder.glob("*.json"), key=_number)]
    files = files if any(file.stem.isdecimal() for file in files) else files_of(path, split)
    items = []
    for file in files:
        for line, row in read_rows(file):
            where = f"{file}:{line}"
            if _is_wanted(cfg, row, where):
                name = f"{file.parent.name}/{file.name}" if file.stem.isdecimal() else f"{file.name}:{line}"
                items.append(competition.item_of(row, where, name, reference))
    if not items:
        raise DataError(f"{path}: has no problem of the levels and subjects asked for")
    return items


def _number(file: Path) -> tuple[int, str]:
    return (int(file.stem) if file.stem.isdecimal() else 0, file.name)


def _is_wanted(cfg: Config, row: Row, where: str) -> bool:
    """Levels are written "Level 3" or 3, subjects "Counting & Probability" or "counting_and_probability"."""
    if cfg.levels and text_field(row, "level", where).rpartition(" ")[2] not in map(str, cfg.levels):
        return False
    field = "type" if "type" in row else "subject"
    return not cfg.subjects or _plain(text_field(row, field, where)) in map(_plain, cfg.subjects)


def _plain(subject: str) -> str:
    return re.sub(r"[^a-z]+", "_", subject.casefold().replace("&", "and"))


def _manner(cfg: Config) -> Manner:
    return Manner(template=cfg.template, chat=cfg.chat, system=cfg.system)
