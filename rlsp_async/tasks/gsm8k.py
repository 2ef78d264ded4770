"""Grade-school word problems (Cobbe et al., arXiv:2110.14168; MIT licence), shipped with the package.

7473 training and 1319 test problems. Demonstrations are the data set's own solutions, without its calculator marks,
with the answer in a box.
"""

from __future__ import annotations

import re

import msgspec

from rlsp_async.config import Section
from rlsp_async.tasks import dataset
from rlsp_async.tasks.base import Split
from rlsp_async.tasks.readers import shipped_file
from rlsp_async.tasks.row_task import Item, Rows

_MARK = re.compile(r"<<[^<>]*>>")


class Config(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the problems are put to the model."""

    chat: bool = True
    """Put the prompt through the tokenizer's chat template, as a user message."""
    system: str = ""
    """System message; needs chat."""
    template: str = dataset.TEMPLATE
    """`{prompt}` is replaced by the problem; everything else stands as it is."""
    limit: int = 0
    """Use only so many problems of each split; 0: all."""

    def __post_init__(self) -> None:
        _rows(self, "train")


def load(cfg: Config, seed: int) -> Rows:
    """The task."""
    splits: dict[Split, list[Item]] = {}
    for split in ("train", "test"):
        rows = _rows(cfg, split)
        splits[split] = [_boxed(item) for item in dataset.read_file(rows, shipped_file(f"gsm8k_{split}.jsonl.gz"))]
    return Rows("gsm8k", dataset.manner(_rows(cfg, "train")), splits)


def _rows(cfg: Config, split: str) -> dataset.Config:
    return dataset.Config(
        path_train="",
        chat=cfg.chat,
        system=cfg.system,
        template=cfg.template,
        limit=cfg.limit,
        response_field="solution" if split == "train" else "",
    )


def _boxed(item: Item) -> Item:
    """The solution as a response: calculator marks gone, "#### 72" as a box."""
    text = _MARK.sub("", item.response).partition("####")[0].rstrip()
    return msgspec.structs.replace(item, response=f"{text}\nThe answer is \\boxed{{{item.answer}}}." if text else "")
