"""Competition problems from the user's own files, with the field names that published copies use.

    read_problems(Path("aime_2024.parquet"), "test", whole_number)     # a list of Items

Shared by the tasks `hendrycks_math`, `aime` and `amc`. The problems belong to their authors; the package ships none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from rlsp_async.config import Section
from rlsp_async.config.ranges import FieldName, FreeText, PathText
from rlsp_async.errors import DataError
from rlsp_async.tasks.base import Split
from rlsp_async.tasks.dataset import TEMPLATE
from rlsp_async.tasks.readers import Row, list_files, read_rows, text_field
from rlsp_async.tasks.row_task import Deduplicate, Item, PromptFormat, RowTask

PROBLEM = ("problem", "Problem", "question", "Question", "prompt")
ANSWER = ("answer", "Answer", "expected_answer", "final_answer")
SOLUTION = ("solution", "Solution")

ReadAnswer = Callable[[Row, str], str]
"""The reference answer of a row; the text says where the row is, for errors."""


class CompetitionConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of the tasks `aime` and `amc`: where your copy is and how the problems are put to the model."""

    path_test: PathText
    """A file of rows, or a directory with the split `split_test`."""
    path_train: PathText = ""
    """Problems to train on, for example of other years. Empty: the task is for evaluation only."""
    split_train: FieldName = "train"
    """Which split of a directory; without meaning for a file."""
    split_test: FieldName = "test"
    """The same for held-out problems."""
    chat: bool = True
    """Put the prompt through the tokenizer's chat template, as a user message."""
    system: FreeText = ""
    """System message; needs chat."""
    template: FreeText = TEMPLATE
    """`{prompt}` is replaced by the problem; all other text stays as it is."""
    deduplicate: Deduplicate = "exact"
    """exact: training rows that equal a test row are removed. near: also rows that share 13 words in sequence with one.
    off: nothing is removed."""

    def __post_init__(self) -> None:
        prompt_format(self)


def prompt_format(cfg: CompetitionConfig) -> PromptFormat:
    """How the problems are put to the model."""
    return PromptFormat(template=cfg.template, chat=cfg.chat, system=cfg.system)


def load_competition(name: str, cfg: CompetitionConfig, read_answer: ReadAnswer) -> RowTask:
    """The task `name` from the user's files. Raises DataError with FILE:LINE for a row that cannot be used."""
    splits: dict[Split, list[Item]] = {"train": [], "test": []}
    splits["test"] = read_problems(Path(cfg.path_test).expanduser(), cfg.split_test, read_answer)
    if cfg.path_train:
        splits["train"] = read_problems(Path(cfg.path_train).expanduser(), cfg.split_train, read_answer)
    return RowTask(name, prompt_format(cfg), splits, deduplicate=cfg.deduplicate)


def read_problems(path: Path, split: str, read_answer: ReadAnswer) -> list[Item]:
    """The problems of a file, or of a split of a directory. Raises DataError with FILE:LINE."""
    items = []
    for file in list_files(path, split):
        for line, row in read_rows(file):
            items.append(read_problem(row, f"{file}:{line}", f"{file.name}:{line}", read_answer))
    return items


def read_problem(row: Row, where: str, source: str, read_answer: ReadAnswer) -> Item:
    """A row as problem, reference answer and, if the row has one, the solution to imitate."""
    solution = next(present_fields(row, SOLUTION), "")
    return Item(
        prompt=first_field(row, PROBLEM, where),
        answer=read_answer(row, where),
        source=source,
        response=text_field(row, solution, where, empty_ok=True) if solution else "",
    )


def present_fields(row: Row, names: tuple[str, ...]) -> Iterator[str]:
    """Those of `names` for which the row has a value."""
    return (name for name in names if row.get(name) is not None)


def first_field(row: Row, names: tuple[str, ...], where: str) -> str:
    """The text of the first of these fields that the row has. Raises DataError when it has none of them."""
    name = next(present_fields(row, names), None)
    if name is None:
        raise DataError(
            f"{where}: has none of the fields {', '.join(map(repr, names))}; it has "
            f"{', '.join(map(repr, row)) or 'none'}"
        )
    return text_field(row, name, where)


def whole_number(row: Row, where: str) -> str:
    """The answer as a whole number without leading zeros: "073" and 73.0 are "73". Other text is left as it is."""
    text = first_field(row, ANSWER, where).strip()
    digits = text.removesuffix(".0").replace(",", "")
    return str(int(digits)) if digits.removeprefix("-").isdecimal() else text


def last_box(text: str) -> str:
    r"""The content of the last \boxed{...} or \fbox{...} of a solution, or of `\boxed 7`; "" when none is closed."""
    start, length = max((text.rfind(box), len(box)) for box in ("\\boxed", "\\fbox"))
    if start < 0:
        return ""
    inside = text[start + length :].lstrip(" ")
    if not inside.startswith("{"):
        return (inside.split(maxsplit=1) or [""])[0].strip("$.,")
    depth, at = 0, 0
    while at < len(inside):
        depth += (inside[at] == "{") - (inside[at] == "}")
        if depth == 0:
            return inside[1:at].strip()
        at += 2 if inside[at] == "\\" else 1
    return ""
