"""Neighbours of what users have reported: where code stands, what it imports, the forms of tests, values, objects."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlsp_async import config
from rlsp_async.errors import DataError
from rlsp_async.preflight.references import judge_references
from rlsp_async.verifying.base import load_verifier
from rlsp_async.verifying.code.extract import find_code
from rlsp_async.verifying.code.forms import read_reference
from tests.verifying.code import neighbours
from tests.verifying.pools import make_pool, verify_cases


async def test_every_neighbour_is_judged_as_a_reader_would() -> None:
    cases = neighbours.all_cases()
    async with make_pool("code", processes=2, deadline_s=60.0, memory_mb=1024) as pool:
        verdicts = [
            verdict
            for start in range(0, len(cases), 40)
            for verdict in await verify_cases(pool, *(case[1:4] for case in cases[start : start + 40]))
        ]
    found = {
        case[0]: (verdict.status, verdict.detail)
        for case, verdict in zip(cases, verdicts, strict=True)
        if verdict.status != case[4] and not (case[4] == "not" and verdict.status != "correct")
    }
    assert len(cases) > 340
    assert not found


async def test_the_share_of_tests_that_pass_is_a_part() -> None:
    code = "def f(x):\n    return x if x < 3 else 0"
    cases = [
        ("\n".join(f"assert f({i}) == {i}" for i in range(4)), 0.75),
        ('["assert f(1) == 1", "assert f(5) == 5"]', 0.5),
        ('{"inputs": [[1], [2], [7]], "outputs": [1, 2, 7], "fn_name": "f"}', 2 / 3),
        ("def check(candidate):\n    assert candidate(9) == 9\n    assert candidate(2) == 2", 0.5),
        ("import pytest\n@pytest.mark.parametrize('x', [1, 2, 3, 4, 5])\ndef test_f(x):\n    assert f(x) == x", 0.4),
        ("x = f(None)\nassert f(1) == 1", 0.0),
    ]
    async with make_pool("code", processes=1) as pool:
        verdicts = await verify_cases(pool, *(("def f(x):\n    ...", code, tests) for tests, _ in cases))
    assert [verdict.status for verdict in verdicts] == ["wrong"] * len(cases)
    assert [verdict.parts["passed"] for verdict in verdicts] == [share for _, share in cases]


async def test_a_tolerance_is_that_of_the_answer_else_of_the_prompt_else_of_the_option() -> None:
    third, program = '{{"inputs": ["1"], "outputs": ["0.3333"]{}}}', "print(1 / 3)"
    stated = "Print x with an absolute or relative error of at most $10^{-3}$."
    cases = [
        (stated, program, third.format("")),
        ("", program, third.format("")),
        (stated, program, third.format(', "tolerance": 0')),
    ]
    async with make_pool("code") as pool:
        assert [v.status for v in await verify_cases(pool, *cases)] == ["correct", "wrong", "wrong"]
    async with make_pool("code", {"tolerance": 0.001}) as pool:
        assert [v.status for v in await verify_cases(pool, *cases)] == ["correct", "correct", "wrong"]


def test_what_cannot_be_carried_is_said_before_anything_runs() -> None:
    code = load_verifier("code")
    assert code.can_read("", "assert f(1) == 1")
    for tests in (
        "import scipy_is_not_here\nassert f(1) == 1",
        "assert f(open('x').read()) == 1",
        '{"inputs": ["1"], "outputs": []}',
        '{"inputs": [["a"]], "outputs": ["b"], "fn_name": 3}',
        "not Python",
    ):
        assert not code.can_read("", tests)
    with pytest.raises(DataError, match=r"line 1 of the tests imports 'scipy_is_not_here', which is not there"):
        code.scorer.check_answer("", "import scipy_is_not_here\nassert f(1) == 1")  # type: ignore[attr-defined]


def test_the_check_before_a_run_names_the_row_whose_tests_cannot_be_used(tmp_path: Path) -> None:
    rows = ["assert f(1) == 1", "import scipy_is_not_here\\nassert f(1) == 1", "assert g(2) == 2"]
    lines = [f'{{"prompt": "Problem {i}.", "answer": "{row}"}}\n' for i, row in enumerate(rows)]
    (tmp_path / "tests.jsonl").write_text("".join(lines))
    (tmp_path / "heldout.jsonl").write_text('{"prompt": "Problem 9.", "answer": "assert f(1) == 1"}\n')
    paths = {"path_train": str(tmp_path / "tests.jsonl"), "path_test": str(tmp_path / "heldout.jsonl")}
    task = config.TaskConfig(name="jsonl", options={**paths, "verifier": "code"})
    found = judge_references(config.RunConfig(name="r", stages={"s": config.StageConfig()}, task=task))
    assert found is not None
    assert (found.judged, found.failed) == (1, 1)
    assert found.examples[0].startswith("tests.jsonl:2: ")
    assert "imports 'scipy_is_not_here'" in found.examples[0] or "is error (DataError: line 1" in found.examples[0]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ('{"inputs": ["1", "2"], "outputs": ["1"]}', "2 inputs and 1 outputs"),
        ('[{"input": "1"}]', "case 1 of the reference answer has no output"),
        ('[{"input": "1", "output": "1", "testtype": "interactive"}]', "cases of the kind interactive"),
        ('{"inputs": ["1"], "outputs": ["1"], "tolerance": "small"}', "tolerance 'small', which is not a number"),
        ('{"inputs": ["a b"], "outputs": ["1"], "fn_name": "f"}', "the input of case 1 is neither JSON"),
        ("{1: 2", "is not a JSON object"),
        ("[1, 2]", "is not a JSON object"),
    ],
)
def test_an_answer_that_holds_no_tests_is_refused_with_its_reason(answer: str, why: str) -> None:
    with pytest.raises(DataError, match=why):
        read_reference(answer, "", 0.0)


def test_helpers_come_from_other_blocks_and_only_those_that_are_used() -> None:
    text = "```python\nimport os\ndef used():\n    return 1\ndef unused():\n    return 2\n```\n```python\ndef f():\n    return used()\n```"
    assert find_code(text, "f", "") == "def used():\n    return 1\ndef f():\n    return used()\n"
