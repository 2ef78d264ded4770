"""Countdown: an expression over the given numbers, each used once, that equals the target.

    Using the numbers [30, 100, 93], create an arithmetic expression that equals 23. ...     answer "30 93 100 -> 23"

Rows have `numbers`, `target` and optionally `solution`, the expression to imitate. The package ships 1999 generated
training problems with solutions and, for the test split, the 256 problems of dllm-reasoning/d1 (Apache-2.0). Two
puzzles are the same when their targets and their numbers, in any order, are the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from rlsp_async.config import Section
from rlsp_async.config.ranges import FreeText, PathText, Range
from rlsp_async.errors import DataError
from rlsp_async.tasks.readers import Row, read_rows, shipped_file
from rlsp_async.tasks.row_task import Item, PromptFormat, RowTask

TEMPLATE = (
    "Using the numbers {numbers}, write an arithmetic expression that equals {target}. Use each number exactly once, "
    "with + - * / and brackets. Write the expression between <answer> and </answer>."
)


class CountdownConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the rows are and how they are put to the model."""

    path_train: PathText = ""
    """JSONL file with `numbers` and `target` in each row. Empty: the shipped one."""
    path_test: PathText = ""
    """The same for held-out rows."""
    chat: bool = True
    """Put the prompt through the tokenizer's chat template, as a user message."""
    system: FreeText = ""
    """System message; needs chat."""
    template: FreeText = TEMPLATE
    """`{numbers}` and `{target}` are replaced by the row's."""
    limit: Annotated[int, Range(ge=0, le=10**9)] = 0
    """Use only this many rows of each file; 0: all."""

    def __post_init__(self) -> None:
        if "{numbers}" not in self.template or "{target}" not in self.template:
            raise ValueError("template must contain {numbers} and {target}")
        _prompt_format(self)


Config = CountdownConfig


def load(cfg: CountdownConfig, seed: int) -> RowTask:
    """Reads the files. Raises DataError with FILE:LINE for a row that cannot be used."""
    train = _read(cfg, cfg.path_train, "countdown_train.jsonl.gz")
    test = _read(cfg, cfg.path_test, "countdown_test.jsonl.gz")
    return RowTask("countdown", _prompt_format(cfg), {"train": train, "test": test})


def _read(cfg: CountdownConfig, path: str, shipped: str) -> list[Item]:
    where = Path(path).expanduser() if path else shipped_file(shipped)
    items: list[Item] = []
    for line, row in read_rows(where):
        items.append(_item(cfg, row, f"{where}:{line}", f"{where.name}:{line}"))
        if len(items) == cfg.limit:
            break
    return items


def _item(cfg: CountdownConfig, row: Row, where: str, source: str) -> Item:
    numbers, target = row.get("numbers"), row.get("target")
    if not isinstance(numbers, list) or not numbers or not all(type(n) is int and n >= 0 for n in [*numbers, target]):
        raise DataError(f"{where}: needs `numbers` (a list of whole numbers) and `target` (a whole number)")
    solution = row.get("solution")
    text = cfg.template.replace("{numbers}", str(numbers)).replace("{target}", str(target))
    answer = f"{' '.join(map(str, numbers))} -> {target}"
    return Item(
        prompt=text,
        answer=answer,
        source=source,
        content=f"{sorted(numbers)} -> {target}",
        response=f"<answer>{solution}</answer>" if isinstance(solution, str) else "",
    )


def _prompt_format(cfg: CountdownConfig) -> PromptFormat:
    return PromptFormat(chat=cfg.chat, system=cfg.system, verifier="countdown")
