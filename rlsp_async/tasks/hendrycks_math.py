"""MATH (Hendrycks et al., arXiv:2103.03874) from your own copy; the package may not ship the problems.

Either the directory as published (MATH/train/algebra/1.json ...) or files of rows with `problem` and `solution`
(.jsonl, .json, .csv, .parquet; MATH-500 is one). The reference answer is the field `answer`, else the last box of the
solution. Demonstrations are the data set's own solutions.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from rlsp_async.config import Section
from rlsp_async.config.ranges import FieldName, FreeText, PathText, Range
from rlsp_async.errors import DataError
from rlsp_async.tasks.base import Split
from rlsp_async.tasks.competition import ANSWER, SOLUTION, first_field, last_box, present_fields, read_problem
from rlsp_async.tasks.dataset import TEMPLATE
from rlsp_async.tasks.readers import Row, list_files, read_rows, text_field
from rlsp_async.tasks.row_task import Deduplicate, Item, PromptFormat, RowTask

EXAMPLE = ("What is $1+2+\\cdots+10$?", "55")


class HendrycksMathConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where your copy is and how the problems are put to the model."""

    path_train: PathText = ""
    """The directory MATH/train, or a file of rows. Empty: for evaluation only."""
    path_test: PathText
    """The same for held-out problems: MATH/test, or a file of rows."""
    levels: list[Annotated[int, Range(ge=1, le=5)]] = []
    """Only problems of these levels, 1 to 5; empty: all."""
    subjects: list[FieldName] = []
    """Only problems of these subjects, e.g. "algebra", "counting_and_probability"; empty: all."""
    chat: bool = True
    """Put the prompt through the tokenizer's chat template, as a user message."""
    system: FreeText = ""
    """System message; needs chat."""
    template: FreeText = TEMPLATE
    """`{prompt}` is replaced by the problem; all other text stays as it is."""
    deduplicate: Deduplicate = "exact"
    """exact: training rows that equal a test row are removed. near: also rows that share 13 words in sequence with one.
    off: nothing is removed."""

    def __post_init__(self) -> None:
        _prompt_format(self)


Config = HendrycksMathConfig


def load(cfg: HendrycksMathConfig, seed: int) -> RowTask:
    """Reads the files. Raises DataError with FILE:LINE for a row that cannot be used."""
    splits: dict[Split, list[Item]] = {
        "train": _read(cfg, cfg.path_train, "train") if cfg.path_train else [],
        "test": _read(cfg, cfg.path_test, "test"),
    }
    return RowTask("hendrycks_math", _prompt_format(cfg), splits, deduplicate=cfg.deduplicate)


def read_answer(row: Row, where: str) -> str:
    """The reference answer of a row. Raises DataError when neither a field nor a box of the solution has one."""
    if next(present_fields(row, ANSWER), None):
        return first_field(row, ANSWER, where)
    answer = last_box(first_field(row, SOLUTION, where))
    if not answer:
        raise DataError(f"{where}: has no field 'answer', and no closed \\boxed{{}} in its solution")
    return answer


def _read(cfg: HendrycksMathConfig, text: str, split: str) -> list[Item]:
    path = Path(text).expanduser()
    folders = [folder for folder in sorted(path.iterdir()) if folder.is_dir()] if path.is_dir() else []
    files = [file for folder in folders for file in sorted(folder.glob("*.json"), key=_file_number)]
    files = files if any(file.stem.isdecimal() for file in files) else list_files(path, split)
    items = []
    for file in files:
        for line, row in read_rows(file):
            where = f"{file}:{line}"
            if _is_wanted(cfg, row, where):
                name = f"{file.parent.name}/{file.name}" if file.stem.isdecimal() else f"{file.name}:{line}"
                items.append(read_problem(row, where, name, read_answer))
    if not items:
        raise DataError(f"{path}: has no problem of the levels and subjects asked for")
    return items


def _file_number(file: Path) -> tuple[int, str]:
    return (int(file.stem) if file.stem.isdecimal() else 0, file.name)


def _is_wanted(cfg: HendrycksMathConfig, row: Row, where: str) -> bool:
    """Whether the options admit a row.

    Levels are written "Level 3" or 3, subjects "Counting & Probability" or "counting_and_probability".
    """
    if cfg.levels and text_field(row, "level", where).rpartition(" ")[2] not in map(str, cfg.levels):
        return False
    field = "type" if "type" in row else "subject"
    return not cfg.subjects or _normalize(text_field(row, field, where)) in map(_normalize, cfg.subjects)


def _normalize(subject: str) -> str:
    return re.sub(r"[^a-z]+", "_", subject.casefold().replace("&", "and"))


def _prompt_format(cfg: HendrycksMathConfig) -> PromptFormat:
    return PromptFormat(template=cfg.template, chat=cfg.chat, system=cfg.system)
