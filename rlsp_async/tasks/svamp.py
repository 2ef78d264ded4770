"""Short word problems of one step (Patel et al., arXiv:2103.07191; MIT licence), shipped with the package.

1000 problems in about 370 stories, told several times with another question. The authors give no split: a story is
held out as a whole, by the hash of its first sentence without the numbers.
"""

from __future__ import annotations

import re

from rlsp_async.config import Section
from rlsp_async.tasks import dataset
from rlsp_async.tasks.base import Split
from rlsp_async.tasks.readers import is_heldout, shipped_file
from rlsp_async.tasks.row_task import Item, Rows

_NUMBER = re.compile(r"\d+")


class Config(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the problems are put to the model."""

    chat: bool = True
    """Put the prompt through the tokenizer's chat template, as a user message."""
    system: str = ""
    """System message; needs chat."""
    template: str = dataset.TEMPLATE
    """`{prompt}` is replaced by the problem; everything else stands as it is."""
    heldout_share: float = 0.3
    """Share of the stories that only the test split has; 1: all, for evaluation only."""

    def __post_init__(self) -> None:
        _rows(self)
        if not 0.0 < self.heldout_share <= 1.0:
            raise ValueError("heldout_share must lie above 0 and not above 1")


def load(cfg: Config, seed: int) -> Rows:
    """The task."""
    splits: dict[Split, list[Item]] = {"train": [], "test": []}
    for item in dataset.read_file(_rows(cfg), shipped_file("svamp.jsonl.gz")):
        splits["test" if is_heldout(story(item.prompt), cfg.heldout_share) else "train"].append(item)
    return Rows("svamp", dataset.manner(_rows(cfg)), splits)


def story(prompt: str) -> str:
    """What the variations of one problem share."""
    return _NUMBER.sub("#", prompt.casefold().partition(".")[0])


def _rows(cfg: Config) -> dataset.Config:
    return dataset.Config(path_train="", chat=cfg.chat, system=cfg.system, template=cfg.template)
