"""A task without the rows that are too long for a run's model, or with their prompts cut: RUN/rows.json.

    rows = RowChanges.read(run_directory)     # None: every row fits, or the run was prepared without a choice
    task = fit_task(task, rows)               # the same prompts in the same order, without those that were dropped

What is dropped or cut is decided once, when the run is prepared (preflight/rows.py), and never again: the same index
gives the same prompt after every restart. A prompt's id keeps the number of its row; its index counts the rows that
are left.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import msgspec

from rlsp_async.errors import DataError
from rlsp_async.messages import Prompt
from rlsp_async.tasks.base import Conversing, Said, Split, Task, no_demonstration

FILE = "rows.json"


class RowChanges(msgspec.Struct, frozen=True, kw_only=True):
    """Which rows of a task a run leaves out, and which it cuts."""

    dropped: dict[str, list[int]] = {}
    """Rows of each split that are left out, by their index in the task."""
    cut: dict[str, dict[int, int]] = {}
    """Rows of each split of which this many characters are taken off the beginning of the prompt."""
    demonstrations: list[int] | None = None
    """The demonstrations that are trained on, by their number in the task; None: all."""

    @property
    def changes_anything(self) -> bool:
        """Whether a row is left out or cut."""
        return any(self.dropped.values()) or any(self.cut.values()) or self.demonstrations is not None

    @classmethod
    def read(cls, directory: Path) -> RowChanges | None:
        """What RUN/rows.json says; None without the file. Raises DataError when it is damaged."""
        path = directory / FILE
        try:
            return msgspec.json.decode(path.read_bytes(), type=cls)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as e:
            raise DataError(f"{path}: cannot be read: {e}; it says which rows the run leaves out") from None


def fit_task(task: Task, rows: RowChanges | None) -> Task:
    """The task with these changes; the task itself when there are none."""
    return FittedTask(task, rows) if rows is not None and rows.changes_anything else task


class FittedTask:
    """A task without some of its rows. What is not named here (`verification` ...) is that of the task itself."""

    def __init__(self, task: Task, rows: RowChanges) -> None:
        self.task, self.rows = task, rows
        self.name, self.verifier = task.name, task.verifier
        self._kept: dict[Split, list[int] | None] = {"train": self._rows_left("train"), "test": self._rows_left("test")}

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.task, name)
        return self._conversation if name == "conversation" else found

    def size(self, split: Split) -> int | None:
        """Number of rows that are left in a split."""
        kept = self._kept[split]
        return self.task.size(split) if kept is None else len(kept)

    def prompt(self, split: Split, index: int) -> Prompt:
        """The prompt of the row that is left at `index`. Raises DataError beyond the end."""
        kept = self._kept[split]
        if kept is not None and not 0 <= index < len(kept):
            raise DataError(f"{self.name}: {split} prompt {index} asked for, there are {len(kept)}")
        row = index if kept is None else kept[index]
        return msgspec.structs.replace(self._cut(split, row, self.task.prompt(split, row)), index=index)

    def demonstration(self, index: int) -> tuple[Prompt, str]:
        """Demonstration `index` of those that are left; after the last the first follows again. Raises DataError."""
        prompt, response = self.task.demonstration(self._demonstration_left(index))
        return self._cut("train", prompt.index, prompt), response

    def _conversation(self, index: int) -> tuple[Prompt, list[Said]]:
        """Demonstration `index` of those that are left, with its turns. Raises DataError."""
        prompt, said = cast(Conversing, self.task).conversation(self._demonstration_left(index))
        return self._cut("train", prompt.index, prompt), said

    def _demonstration_left(self, index: int) -> int:
        """The number in the task of demonstration `index` of those that are left. Raises DataError when none is."""
        left = self.rows.demonstrations
        if left is not None and not left:
            raise no_demonstration(self.name)
        return index if left is None else left[index % len(left)]

    def tokenizer(self) -> Any:
        """The tokenizer of the task itself."""
        return self.task.tokenizer()

    def _cut(self, split: Split, row: int, prompt: Prompt) -> Prompt:
        num = self.rows.cut.get(split, {}).get(row, 0)
        return msgspec.structs.replace(prompt, text=prompt.text[num:]) if num else prompt

    def _rows_left(self, split: Split) -> list[int] | None:
        dropped, size = set(self.rows.dropped.get(split, ())), self.task.size(split)
        if not dropped or size is None:
            return None
        return [row for row in range(size) if row not in dropped]
