"""Which function the tests of a reference answer are about."""

from __future__ import annotations

from rlsp_async.verifying.code.unit_tests import read_tests
from tests.verifying.code.test_verifier import CHECK, HUMANEVAL


def test_the_tested_function_is_found() -> None:
    assert read_tests("assert len(f(1)) == 1\nassert g(f(2))", "").name == "f"
    assert read_tests(CHECK, HUMANEVAL).name == "add"
    assert read_tests(CHECK, f"Complete:\n```python\n{HUMANEVAL}```").name == "add"
