"""Short Python functions with unit tests (Austin et al., arXiv:2108.07732; CC BY 4.0), shipped: the sanitized part.

427 problems, with the authors' split: tasks 11 to 510 are held out (257), and the others are for training (170, of
which the authors keep 43 for validation and 7 for prompts). Demonstrations are the reference solutions. The reference
answer is the text of the tests, which the verifier `code` runs.
"""

from __future__ import annotations

import re
from pathlib import Path

from rlsp_async.config import Section
from rlsp_async.config.ranges import FreeText, PathText
from rlsp_async.errors import DataError
from rlsp_async.tasks.base import Split
from rlsp_async.tasks.readers import Row, read_rows, shipped_file, text_field, value_field
from rlsp_async.tasks.row_task import Item, PromptFormat, RowTask

TEMPLATE = "{prompt}\nIt must pass these tests:\n{tests}\nAnswer with the code in one ```python block."
HELDOUT = range(11, 511)


class MbppConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the problems are and how they are put to the model."""

    path_all: PathText = ""
    """mbpp.jsonl or sanitized-mbpp.json as published, with all splits in it. Empty: the shipped one."""
    chat: bool = True
    """Put the prompt through the tokenizer's chat template, as a user message."""
    system: FreeText = ""
    """System message; needs chat."""
    template: FreeText = TEMPLATE
    """`{prompt}` is replaced by the problem, `{tests}` by its tests, which alone name the function."""

    def __post_init__(self) -> None:
        if "{prompt}" not in self.template or "{tests}" not in self.template:
            raise ValueError("template must contain {prompt} and {tests}")
        _prompt_format(self)


Config = MbppConfig


def load(cfg: MbppConfig, seed: int) -> RowTask:
    """Reads the file. Raises DataError with FILE:LINE for a row that cannot be used."""
    path = Path(cfg.path_all).expanduser() if cfg.path_all else shipped_file("mbpp.jsonl.gz")
    splits: dict[Split, list[Item]] = {"train": [], "test": []}
    for line, row in read_rows(path):
        where = f"{path}:{line}"
        number = text_field(row, "task_id", where)
        if not number.isdecimal():
            raise DataError(f"{where}: field 'task_id' is {number!r}, not a whole number")
        splits["test" if int(number) in HELDOUT else "train"].append(_item(cfg, row, where, f"{path.name}:{line}"))
    return RowTask("mbpp", _prompt_format(cfg), splits)


def _item(cfg: MbppConfig, row: Row, where: str, source: str) -> Item:
    tests = value_field(row, "test_list", where)
    if not isinstance(tests, list) or not tests or not all(isinstance(test, str) for test in tests):
        raise DataError(f"{where}: field 'test_list' is not a list of asserts")
    setup = row.get("test_imports") or row.get("test_setup_code") or []
    lines = [*([setup] if isinstance(setup, str) else setup), *tests]
    prompt = text_field(row, "prompt" if "prompt" in row else "text", where)
    shown = re.sub(
        r"\{(prompt|tests)\}", lambda field: {"prompt": prompt, "tests": "\n".join(tests)}[field[1]], cfg.template
    )
    return Item(
        prompt=shown,
        answer="\n".join(lines),
        source=source,
        content=prompt,
        response=f"```python\n{text_field(row, 'code', where).strip()}\n```",
    )


def _prompt_format(cfg: MbppConfig) -> PromptFormat:
    return PromptFormat(chat=cfg.chat, system=cfg.system, verifier="code")
