"""The verifier `regex`."""

import pytest

from rlsp_async.errors import ConfigError, DataError
from rlsp_async.verifying.base import load_verifier


def status(response: str, answer: str, **options: object) -> str:
    return load_verifier("regex", options).judge("", response, answer).status


def test_the_group_of_the_last_match_is_the_answer() -> None:
    pattern = r"Answer: (\w+)"
    assert status("Answer: red, no. Answer: Blue", "blue", pattern=pattern) == "correct"
    assert status("Answer: blue, no. Answer: red", "blue", pattern=pattern) == "wrong"
    assert status("blue", "blue", pattern=pattern) == "unparsable"
    assert status("Answer: blue </think> red", "blue", pattern=pattern) == "unparsable"


def test_without_a_group_a_match_is_enough() -> None:
    assert status("here: def f(): pass", "", pattern=r"\bdef \w+\(") == "correct"
    assert status("here: lambda", "", pattern=r"\bdef \w+\(") == "unparsable"


def test_the_reference_answer_may_be_the_pattern() -> None:
    assert status("between 41 and 43", r"\b4[12]\b") == "correct"
    assert status("BLUE", "^blue$", ignore_case=True) == "correct"
    assert status("BLUE", "^blue$") == "unparsable"


def test_the_whole_text_or_a_part_of_it() -> None:
    assert status("  4711\n", r"\d+", match="full") == "correct"
    assert status("no 4711", r"\d+", match="full") == "unparsable"


def test_faults_of_data_and_of_options() -> None:
    with pytest.raises(DataError, match="is not a regular expression"):
        status("x", "(")
    with pytest.raises(DataError, match="the reference answer is empty"):
        status("Answer: x", " ", pattern=r"Answer: (\w+)")
    with pytest.raises(DataError, match="the reference answer is empty, and no pattern is set"):
        status("x", "")
    with pytest.raises(ConfigError, match=r"pattern '\(' is not a regular expression"):
        load_verifier("regex", {"pattern": "("})
