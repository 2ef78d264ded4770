"""SECURITY.md promises nothing without a test: every test that it names is there."""

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "SECURITY.md").read_text(encoding="utf-8")
NAMED = re.findall(
    r"`([a-z_/]+\.py)::(test_[a-z0-9_]+)`", PAGE.partition("## Threats")[2].partition("## What is not")[0]
)


def named_in(file: Path) -> set[str]:
    return {
        node.name
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def test_every_test_that_the_page_names_is_there():
    assert len(NAMED) >= 25
    assert not [
        f"{file}::{test}" for file, test in NAMED if not (TESTS / file).is_file() or test not in named_in(TESTS / file)
    ]


def test_every_row_names_a_test():
    rows = [line for line in PAGE.splitlines() if line.startswith("|")][2:]
    assert len(rows) >= 20
    assert not [row for row in rows if "test_" not in row.split("|")[4]]
