"""Grade-school word problems (Cobbe et al., arXiv:2110.14168; MIT licence), shipped with the package.

7473 training and 1319 test problems. Demonstrations are the data set's own solutions, without its calculator marks,
with the answer in a box.
"""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

from rlsp_async.config import Section
from rlsp_async.config.ranges import FreeText, Range
from rlsp_async.tasks.base import Split
from rlsp_async.tasks.dataset import TEMPLATE, DatasetConfig, prompt_format, read_items
from rlsp_async.tasks.readers import shipped_file
from rlsp_async.tasks.row_task import Item, RowTask

_MARK = re.compile(r"<<[^<>]*>>")


class Gsm8kConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the problems are put to the model."""

    chat: bool = True
    """Put the prompt through the tokenizer's chat template, as a user message."""
    system: FreeText = ""
    """System message; needs chat."""
    template: FreeText = TEMPLATE
    """`{prompt}` is replaced by the problem; all other text stays as it is."""
    limit: Annotated[int, Range(ge=0, le=10**9)] = 0
    """Use only this many problems of each split; 0: all."""

    def __post_init__(self) -> None:
        _dataset_config(self, "train")


Config = Gsm8kConfig


def load(cfg: Gsm8kConfig, seed: int) -> RowTask:
    """Reads the shipped files."""
    splits: dict[Split, list[Item]] = {}
    for split in ("train", "test"):
        rows = _dataset_config(cfg, split)
        splits[split] = [_boxed(item) for item in read_items(rows, shipped_file(f"gsm8k_{split}.jsonl.gz"))]
    return RowTask("gsm8k", prompt_format(_dataset_config(cfg, "train")), splits)


def _dataset_config(cfg: Gsm8kConfig, split: str) -> DatasetConfig:
    return DatasetConfig(
        path_train="",
        chat=cfg.chat,
        system=cfg.system,
        template=cfg.template,
        limit=cfg.limit,
        response_field="solution" if split == "train" else "",
    )


def _boxed(item: Item) -> Item:
    """The item with its solution as a response: without calculator marks, and with "#### 72" as a box."""
    text = _MARK.sub("", item.response).partition("####")[0].rstrip()
    return msgspec.structs.replace(item, response=f"{text}\nThe answer is \\boxed{{{item.answer}}}." if text else "")
