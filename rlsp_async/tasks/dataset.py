"""Your own prompts and answers from files of rows: JSON lines, JSON, CSV, Parquet or Arrow.

    [task]
    name = "jsonl"
    options = { path_train = "train.jsonl", path_test = "test.jsonl", chat = true }

    {"prompt": "What is 2 + 2?", "answer": "4"}            a line of train.jsonl

The names of the files say their format: .jsonl, .json, .csv (also .jsonl.gz, .json.gz), .parquet, .arrow; a directory
is a data set with splits (`folders.py`). Without `path_test` the md5 of a prompt decides whether it is held out. The
whole file is checked when the run starts.
"""

from __future__ import annotations

from pathlib import Path

from rlsp_async.config import Section
from rlsp_async.errors import DataError
from rlsp_async.tasks.base import Split
from rlsp_async.tasks.folders import files_of, splits
from rlsp_async.tasks.readers import Row, is_heldout, read_rows, text_field
from rlsp_async.tasks.row_task import Deduplicate, Item, Manner, Rows

EXAMPLE = ("What is 2 + 2?", "4")
TEMPLATE = "{prompt}\nPut the final answer in \\boxed{}."


class Config(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the rows are and how they are put to the model."""

    path_train: str
    """A file of rows, or a directory with splits."""
    path_test: str = ""
    """Held-out rows. Empty: split_test of the directory path_train, else `heldout_share` of its rows, by hash."""
    split_train: str = "train"
    """Which split of a directory; of no meaning for a file."""
    split_test: str = "test"
    heldout_share: float = 0.1
    prompt_field: str = "prompt"
    """"prompt.0.content" goes into lists and objects; so do the other fields."""
    answer_field: str = "answer"
    answer_after: str = ""
    """Only what follows the last of this is the answer, e.g. "####"; empty: the whole field."""
    response_field: str = ""
    """A response to imitate; empty: the file has no demonstrations."""
    chat: bool = False
    """Put the prompt through the tokenizer's chat template, as a user message."""
    system: str = ""
    """System message; needs chat."""
    template: str = TEMPLATE
    """`{prompt}` is replaced by the row's prompt; everything else stands as it is."""
    verifier: str = "math"
    limit: int = 0
    """Use only so many rows of each file; 0: all."""
    deduplicate: Deduplicate = "exact"
    """exact: training rows that equal a test row are removed. near: those with 13 words in a row of one, too."""

    def __post_init__(self) -> None:
        manner(self)
        if not 0.0 < self.heldout_share < 1.0 or self.limit < 0:
            raise ValueError("heldout_share must lie between 0 and 1, limit be at least 0")


def load(cfg: Config, seed: int) -> Rows:
    """Reads the files. Raises DataError with FILE:LINE for a row that cannot be used."""
    return task_of(cfg, "jsonl")


def task_of(cfg: Config, name: str) -> Rows:
    """The task under the name that the run knows it by."""
    return Rows(name, manner(cfg), read_splits(cfg), deduplicate=cfg.deduplicate)


def manner(cfg: Config) -> Manner:
    """How these rows are put to the model."""
    return Manner(template=cfg.template, chat=cfg.chat, system=cfg.system, verifier=cfg.verifier)


def read_splits(cfg: Config) -> dict[Split, list[Item]]:
    """Both splits, checked."""
    path = Path(cfg.path_train).expanduser()
    train = read_file(cfg, path, cfg.split_train)
    if cfg.path_test:
        return {"train": train, "test": read_file(cfg, Path(cfg.path_test).expanduser(), cfg.split_test)}
    if path.is_dir() and cfg.split_test in splits(path):
        return {"train": train, "test": read_file(cfg, path, cfg.split_test)}
    return split_by_hash(train, cfg.heldout_share, cfg.path_train)


def split_by_hash(items: list[Item], share: float, where: str) -> dict[Split, list[Item]]:
    """One list as two splits; a prompt's hash says where it goes. Raises DataError when one stays empty."""
    parts: dict[Split, list[Item]] = {"train": [], "test": []}
    for item in items:
        parts["test" if is_heldout(item.prompt, share) else "train"].append(item)
    for split, rows in parts.items():
        if not rows:
            raise DataError(f"{where}: no row is left for the {split} split; add rows or name path_test")
    return parts


def read_file(cfg: Config, path: Path, split: str = "train") -> list[Item]:
    """The rows of a file, or of a split of a directory, checked."""
    items: list[Item] = []
    for file in files_of(path, split):
        for line, row in read_rows(file):
            items.append(_item(cfg, row, f"{file}:{line}", f"{file.name}:{line}"))
            if len(items) == cfg.limit:
                return items
    return items


def _item(cfg: Config, row: Row, where: str, source: str) -> Item:
    answer = text_field(row, cfg.answer_field, where)
    if cfg.answer_after:
        _, mark, answer = answer.rpartition(cfg.answer_after)
        if not mark or not answer.strip():
            raise DataError(f"{where}: nothing follows {cfg.answer_after!r} in field {cfg.answer_field!r}")
        answer = answer.strip()
    response = text_field(row, cfg.response_field, where) if cfg.response_field else ""
    return Item(prompt=text_field(row, cfg.prompt_field, where), answer=answer, response=response, source=source)
