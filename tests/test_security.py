"""SECURITY.md promises nothing without a test: every test that it names exists."""

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "SECURITY.md").read_text(encoding="utf-8")
GUARANTEES = (TESTS.parent / "docs" / "guarantees.md").read_text(encoding="utf-8")
THREATS = PAGE.partition("## Threats")[2].partition("## What is not")[0]
TEST = re.compile(r"`([a-z_/]+\.py)::(test_[a-z0-9_]+)`")


def named_in(file: Path) -> set[str]:
    return {
        node.name
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def test_every_test_that_the_page_names_is_there():
    named = TEST.findall(THREATS)
    assert len(named) >= 25
    assert not [
        f"{file}::{test}" for file, test in named if not (TESTS / file).is_file() or test not in named_in(TESTS / file)
    ]


def test_every_threat_names_a_test():
    threats = re.split(r"^- ", THREATS, flags=re.MULTILINE)[1:]
    assert len(threats) >= 20
    assert not [threat for threat in threats if not TEST.search(threat)]


def test_every_test_that_the_guarantees_name_is_there():
    """In docs/guarantees.md a test without a file belongs to the file that was named before it."""
    file, missing, num = "", [], 0
    for path, test in re.findall(r"`(?:tests/([a-z_/]+\.py))?(?:::(test_\w+))?`", GUARANTEES):
        file = path or file
        num += bool(test)
        if (path and not (TESTS / path).is_file()) or (test and test not in named_in(TESTS / file)):
            missing.append(f"{file}::{test}")
    assert num >= 20
    assert not missing


def test_figures_of_the_pages_are_those_of_the_tests():
    from tests.audit.test_audit import DAMAGE

    assert f"{len(DAMAGE)} kinds of damage, each of which violates exactly its own guarantee" in GUARANTEES
