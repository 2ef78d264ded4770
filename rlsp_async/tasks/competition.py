"""Competition problems from files of the user's own: the field names that the published copies use.

    read_problems(Path("aime_2024.parquet"), "test", whole_number)     -> items

Shared by `hendrycks_math`, `aime` and `amc`. The problems belong to their authors, so the package ships none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from rlsp_async.errors import DataError
from rlsp_async.tasks.folders import files_of
from rlsp_async.tasks.readers import Row, read_rows, text_field
from rlsp_async.tasks.row_task import Item

PROBLEM = ("problem", "Problem", "question", "Question", "prompt")
ANSWER = ("answer", "Answer", "expected_answer", "final_answer")
SOLUTION = ("solution", "Solution")


def read_problems(path: Path, split: str, answer_of: Callable[[Row, str], str]) -> list[Item]:
    """The problems of a file or of a split of a directory. Raises DataError with FILE:LINE."""
    items = []
    for file in files_of(path, split):
        for line, row in read_rows(file):
            items.append(item_of(row, f"{file}:{line}", f"{file.name}:{line}", answer_of))
    return items


def item_of(row: Row, where: str, source: str, answer_of: Callable[[Row, str], str]) -> Item:
    """A row as problem, reference answer and, if there is one, the solution to imitate."""
    solution = next(present(row, SOLUTION), "")
    return Item(
        prompt=one_of(row, PROBLEM, where),
        answer=answer_of(row, where),
        source=source,
        response=text_field(row, solution, where, empty_ok=True) if solution else "",
    )


def present(row: Row, names: tuple[str, ...]) -> Iterator[str]:
    """Those of the names that the row has a value for."""
    return (name for name in names if row.get(name) is not None)


def one_of(row: Row, names: tuple[str, ...], where: str) -> str:
    """The text of the first field that is there. Raises DataError when none is."""
    name = next(present(row, names), None)
    if name is None:
        raise DataError(
            f"{where}: has none of the fields {', '.join(map(repr, names))}; it has "
            f"{', '.join(map(repr, row)) or 'none'}"
        )
    return text_field(row, name, where)


def whole_number(row: Row, where: str) -> str:
    """The answer as a whole number without leading zeros: "073" and 73.0 are "73"; other text stays as it is."""
    text = one_of(row, ANSWER, where).strip()
    digits = text.removesuffix(".0").replace(",", "")
    return str(int(digits)) if digits.removeprefix("-").isdecimal() else text


def last_box(text: str) -> str:
    """What stands in the last \\boxed{...} (or \\fbox) of a solution, `\\boxed 7`, too; empty when none is closed."""
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
