"""Your own prompts and answers from files of rows: JSON lines, JSON, CSV, Parquet or Arrow.

    [task]
    name = "jsonl"
    options = { path_train = "train.jsonl", path_test = "test.jsonl", chat = true }

    {"prompt": "What is 2 + 2?", "answer": "4"}            a line of train.jsonl

The suffix of a file says its format: .jsonl, .json, .csv (also .jsonl.gz, .json.gz), .parquet, .arrow. A directory is
a data set with splits, for example a copy from the Hugging Face hub or what `save_to_disk` wrote (`readers.py`).
Without `path_test` the md5 of a prompt decides whether the prompt is held out. All files are checked when the run
starts. Parquet and Arrow files need pyarrow (pip install 'rlsp_async[parquet]'); the library `datasets` is not needed.

The task has four names, which differ only in the prompt ids: `jsonl`, `parquet`, `hf` and `dataset`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from rlsp_async.answers import join_answers
from rlsp_async.config import Section
from rlsp_async.config.ranges import FieldName, FreeText, PathText, PluginName, Range
from rlsp_async.errors import DataError
from rlsp_async.tasks.base import Split, is_heldout
from rlsp_async.tasks.conversation import Conversation, is_conversation, read_conversation, read_response
from rlsp_async.tasks.readers import (
    Row,
    has_field,
    list_files,
    list_splits,
    read_rows,
    text_field,
    text_fields,
    value_field,
)
from rlsp_async.tasks.row_task import Deduplicate, Item, PromptFormat, RowTask

EXAMPLE = ("What is 2 + 2?", "4")
TEMPLATE = "{prompt}\nPut the final answer in \\boxed{}."


class DatasetConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the rows are and how they are put to the model. The names `jsonl`, `parquet` and `hf` are this task too."""

    path_train: PathText
    """A file of rows, or a directory with splits."""
    path_test: PathText = ""
    """Held-out rows. Empty: split_test of the directory path_train, else `heldout_share` of its rows, by hash."""
    split_train: FieldName = "train"
    """Which split of a directory; without meaning for a file."""
    split_test: FieldName = "test"
    """The same for held-out rows."""
    heldout_share: Annotated[float, Range(gt=0, lt=1)] = 0.1
    """Share of the rows that is held out when there is neither path_test nor a test split."""
    prompt_field: FieldName = "prompt"
    """Field with the prompt: text, or a list of chat messages (needs chat), whose last one the template applies to.
    "prompt.0.content" reaches into lists and objects; so do the other fields."""
    answer_field: FieldName = "answer"
    """Field with the reference answer. A list in it holds acceptable answers: a response with any of them is correct.
    With response_field rows may lack it; they can be imitated, and not be judged."""
    answer_after: FieldName = ""
    """Only what follows the last occurrence of this mark is the answer, e.g. "####"; empty: the whole field."""
    response_field: FieldName = ""
    """Field with a response to imitate; empty: the file has no demonstrations. The same as prompt_field: the last
    message of the conversation, by the assistant, is the response."""
    chat: bool = False
    """Put the prompt through the tokenizer's chat template, as a user message."""
    system: FreeText = ""
    """System message; needs chat. A row that brings a system message of its own keeps that."""
    template: FreeText = TEMPLATE
    """`{prompt}` is replaced by the row's prompt; all other text stays as it is."""
    verifier: PluginName = "math"
    """The verifier of the answers, unless `task.verifier` names another one."""
    limit: Annotated[int, Range(ge=0, le=10**9)] = 0
    """Use only this many rows of each file; 0: all."""
    deduplicate: Deduplicate = "exact"
    """exact: training rows that equal a test row are removed. near: also rows that share 13 words in sequence with one.
    off: nothing is removed."""

    def __post_init__(self) -> None:
        prompt_format(self)


Config = DatasetConfig


def load(cfg: DatasetConfig, seed: int, name: str = "dataset") -> RowTask:
    """Reads the files; `name` is the name under which the run asked. Raises DataError with FILE:LINE for a bad row."""
    return RowTask(name, prompt_format(cfg), read_splits(cfg), deduplicate=cfg.deduplicate)


def prompt_format(cfg: DatasetConfig) -> PromptFormat:
    """How these rows are put to the model."""
    return PromptFormat(template=cfg.template, chat=cfg.chat, system=cfg.system, verifier=cfg.verifier)


def read_splits(cfg: DatasetConfig) -> dict[Split, list[Item]]:
    """Both splits, checked."""
    path = Path(cfg.path_train).expanduser()
    train = read_items(cfg, path, cfg.split_train)
    if cfg.path_test:
        heldout = Path(cfg.path_test).expanduser()
        return {"train": train, "test": read_items(cfg, heldout, cfg.split_test, imitated=False)}
    if path.is_dir() and cfg.split_test in list_splits(path):
        return {"train": train, "test": read_items(cfg, path, cfg.split_test, imitated=False)}
    return split_by_hash(train, cfg.heldout_share, cfg.path_train)


def split_by_hash(items: list[Item], share: float, where: str) -> dict[Split, list[Item]]:
    """One list as two splits, by the hash of each prompt; the test split of a small file may stay empty.

    Raises DataError when no row is left to train on.
    """
    parts: dict[Split, list[Item]] = {"train": [], "test": []}
    for item in items:
        parts["test" if is_heldout(item.prompt, share) else "train"].append(item)
    if not parts["train"]:
        raise DataError(f"{where}: no row is left for the train split; add rows or name path_test")
    return parts


def read_items(cfg: DatasetConfig, path: Path, split: str = "train", *, imitated: bool = True) -> list[Item]:
    """The rows of a file, or of a split of a directory, checked. `imitated`: with the responses of response_field."""
    items: list[Item] = []
    for file in list_files(path, split):
        for line, row in read_rows(file):
            items.append(_item(cfg, row, f"{file}:{line}", f"{file.name}:{line}", imitated))
            if len(items) == cfg.limit:
                return items
    return items


def _item(cfg: DatasetConfig, row: Row, where: str, source: str, imitated: bool) -> Item:
    may_lack_answer = bool(cfg.response_field) and not has_field(row, cfg.answer_field)
    asked = _asked(cfg, row, where)
    response = asked.response
    if cfg.response_field not in ("", cfg.prompt_field) and imitated:
        response = _response(cfg, row, where)
    return Item(
        prompt=asked.text,
        answer="" if may_lack_answer else _answer(cfg, row, where),
        response=response if imitated else "",
        source=source,
        content="\n".join([asked.system, *(one.text for one in asked.earlier), asked.text]) if asked.earlier else "",
        system=asked.system,
        earlier=asked.earlier,
    )


def _asked(cfg: DatasetConfig, row: Row, where: str) -> Conversation:
    """The prompt of a row as a conversation; plain text is one message of the user."""
    field = cfg.prompt_field
    if not is_conversation(value_field(row, field, where)):
        if cfg.response_field == field:
            raise DataError(f"{where}: field {field!r} is prompt and response at once, and no list of chat messages")
        return Conversation(system="", earlier=[], text=text_field(row, field, where))
    if not cfg.chat:
        raise DataError(f"{where}: field {field!r} is a list of chat messages: set task.options.chat = true")
    answered = cfg.response_field == field
    return read_conversation(value_field(row, field, where), f"{where}: field {field!r}", answered=answered)


def _response(cfg: DatasetConfig, row: Row, where: str) -> str:
    value = value_field(row, cfg.response_field, where)
    if is_conversation(value):
        return read_response(value, f"{where}: field {cfg.response_field!r}")
    return text_field(row, cfg.response_field, where)


def _answer(cfg: DatasetConfig, row: Row, where: str) -> str:
    """The reference answer of a row, or its acceptable answers as one text."""
    answers = text_fields(row, cfg.answer_field, where)
    if cfg.answer_after:
        answers = [_after(cfg, answer, where) for answer in answers]
    try:
        return join_answers(answers)
    except ValueError as e:
        raise DataError(f"{where}: field {cfg.answer_field!r}: {e}") from None


def _after(cfg: DatasetConfig, answer: str, where: str) -> str:
    _, mark, after = answer.rpartition(cfg.answer_after)
    if not mark or not after.strip():
        raise DataError(f"{where}: nothing follows {cfg.answer_after!r} in field {cfg.answer_field!r}")
    return after.strip()
