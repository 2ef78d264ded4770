"""Short word problems of one step (Patel et al., arXiv:2103.07191; MIT licence), shipped with the package.

1000 problems about 370 stories; each story comes several times, with different questions. The authors give no split. A
story is held out as a whole, by the hash of its first sentence without the numbers.
"""

from __future__ import annotations

import re
from typing import Annotated

from rlsp_async.config import Section
from rlsp_async.config.ranges import FreeText, Range
from rlsp_async.tasks.base import Split, is_heldout
from rlsp_async.tasks.dataset import TEMPLATE, DatasetConfig, prompt_format, read_items
from rlsp_async.tasks.readers import shipped_file
from rlsp_async.tasks.row_task import Item, RowTask

_NUMBER = re.compile(r"\d+")


class SvampConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the problems are put to the model."""

    chat: bool = True
    """Put the prompt through the tokenizer's chat template, as a user message."""
    system: FreeText = ""
    """System message; needs chat."""
    template: FreeText = TEMPLATE
    """`{prompt}` is replaced by the problem; all other text stays as it is."""
    heldout_share: Annotated[float, Range(gt=0, le=1)] = 0.3
    """Share of the stories that is held out for the test split; 1: all, for evaluation only."""

    def __post_init__(self) -> None:
        _dataset_config(self)


Config = SvampConfig


def load(cfg: SvampConfig, seed: int) -> RowTask:
    """Reads the shipped file."""
    splits: dict[Split, list[Item]] = {"train": [], "test": []}
    for item in read_items(_dataset_config(cfg), shipped_file("svamp.jsonl.gz")):
        splits["test" if is_heldout(story_of(item.prompt), cfg.heldout_share) else "train"].append(item)
    return RowTask("svamp", prompt_format(_dataset_config(cfg)), splits)


def story_of(prompt: str) -> str:
    """The text that all variations of one problem share."""
    return _NUMBER.sub("#", prompt.casefold().partition(".")[0])


def _dataset_config(cfg: SvampConfig) -> DatasetConfig:
    return DatasetConfig(path_train="", chat=cfg.chat, system=cfg.system, template=cfg.template)
