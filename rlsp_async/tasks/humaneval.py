"""Python functions from their docstrings (Chen et al., arXiv:2107.03374; MIT licence), shipped; evaluation only.

164 problems; the training split is empty. The reference answer is JSON for the verifier `code`, with the tests and the
name of the function: {"entry_point": "add", "test": "def check(candidate): ..."}.
"""

from __future__ import annotations

import json
from pathlib import Path

from rlsp_async.config import Section
from rlsp_async.config.ranges import FreeText, PathText
from rlsp_async.tasks.readers import Row, read_rows, shipped_file, text_field
from rlsp_async.tasks.row_task import Item, PromptFormat, RowTask

TEMPLATE = "Complete this function. Answer with the whole function in one ```python block.\n\n```python\n{prompt}```"


class HumanevalConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the problems are and how they are put to the model."""

    path_test: PathText = ""
    """HumanEval.jsonl(.gz) or another file with `prompt`, `test` and `entry_point`. Empty: the shipped one."""
    chat: bool = True
    """Put the prompt through the tokenizer's chat template, as a user message."""
    system: FreeText = ""
    """System message; needs chat."""
    template: FreeText = TEMPLATE
    """`{prompt}` is replaced by signature and docstring; "{prompt}" alone lets a base model continue it."""

    def __post_init__(self) -> None:
        _prompt_format(self)


Config = HumanevalConfig


def load(cfg: HumanevalConfig, seed: int) -> RowTask:
    """Reads the file. Raises DataError with FILE:LINE for a row that cannot be used."""
    path = Path(cfg.path_test).expanduser() if cfg.path_test else shipped_file("humaneval.jsonl.gz")
    items = [_item(row, f"{path}:{line}", f"{path.name}:{line}") for line, row in read_rows(path)]
    return RowTask("humaneval", _prompt_format(cfg), {"train": [], "test": items})


def _item(row: Row, where: str, source: str) -> Item:
    answer = json.dumps({name: text_field(row, name, where) for name in ("entry_point", "test")})
    return Item(prompt=text_field(row, "prompt", where), answer=answer, source=source)


def _prompt_format(cfg: HumanevalConfig) -> PromptFormat:
    return PromptFormat(template=cfg.template, chat=cfg.chat, system=cfg.system, verifier="code")
