"""Responses without code. Code that is found is tested with its verdicts, in test_verifier.py."""

from __future__ import annotations

import pytest

from rlsp_async.verifying.code.extract import find_code


@pytest.mark.parametrize("response", ["def f(:", "```python\nf(\n```", "x" * 70_000, "(" * 5000, "\0", "class g: pass"])
def test_text_without_code(response: str) -> None:
    assert find_code(response, "f", "") is None
