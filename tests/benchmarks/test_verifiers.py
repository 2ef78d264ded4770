"""The comparison of three checkers: its cases, its counts, and what it calls right."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path

import pytest
import verifiers
from verifiers import Case, Figures, Judged


def test_the_cases_that_ship_have_right_and_wrong_answers_of_each_kind() -> None:
    cases = list(verifiers.read_cases(verifiers.CASES))
    kinds = Counter((case.kind, case.is_right) for case in cases)
    assert len(cases) == len({(case.kind, case.gold, case.response) for case in cases}) == 77
    assert all((kind, not is_right) in kinds for kind, is_right in kinds)


def test_generated_neighbours_are_different_texts_and_the_same_for_one_seed() -> None:
    cases = list(verifiers.generated(3, 5))
    assert cases == list(verifiers.generated(3, 5)) != list(verifiers.generated(4, 5))
    assert {case.kind for case in cases} == {f"generated: {kind}" for kind in verifiers.GENERATED}
    right = {(case.gold, case.response) for case in cases if case.is_right}
    assert not right & {(case.gold, case.response) for case in cases if not case.is_right}


def test_each_checker_is_counted_by_kind_and_weight() -> None:
    def judged(kind: str, is_right: bool, *accepts: bool, weight: int = 1) -> Judged:
        case = Case(kind, "1", "1", is_right, weight)
        return Judged(case, dict(zip(verifiers.CHECKERS, accepts, strict=True)), "named rules")

    rows = [
        judged("a: x", True, True, False, True, weight=3),
        judged("a: x", False, False, True, False),
        judged("a: y", True, False, True, True),
    ]
    figures = verifiers.count(rows)
    assert figures["a: x"]["ours"] == Figures(4, 0, 0)
    assert figures["a: x"]["math-verify"] == Figures(0, 1, 3)
    assert figures["all a"]["ours"] == Figures(4, 0, 1)
    assert verifiers.worse_than_peer(rows) == (1, 1)
    assert "| a: x | 4 | 100.0 %, 0 wa, 0 rr | 0.0 %, 1 wa, 3 rr |" in verifiers.table(figures)


def test_a_case_is_judged_by_three_checkers_and_the_path_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    tagged = verifiers.judge(Case("k", "18", "<answer>18</answer>", True))
    assert tagged.accepts == {"ours": True, "math-verify": False, "math-verify + spans": True}
    assert tagged.path == "the same text"
    assert verifiers.judge(Case("k", "1/2", "\\boxed{0.5}", True)).path == "numbers, read whole"
    assert verifiers.judge(Case("k", "1/2", "nothing here", False)).path == "no answer found"
    assert verifiers.judge(Case("k", "(1, 2)", "\\boxed{(2, 1)}", False)).path == "named rules"
    monkeypatch.setattr(verifiers.math_verifier.MathVerifier, "_compare_shapes", lambda *_: None)
    assert verifiers.judge(Case("k", "x+1", "\\boxed{1+x}", True)).path == "math-verify"


def test_cases_of_other_verifiers_run_in_killable_processes(tmp_path: Path) -> None:
    rows = [
        {"kind": "k", "verifier": "choice", "gold": "B", "response": "(B)", "expected": "correct"},
        {"kind": "k", "verifier": "choice", "gold": "yes", "response": "no", "expected": "not-correct"}
        | {"options": ['labels=["yes", "no"]']},
    ]
    (tmp_path / "cases.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    judged = asyncio.run(verifiers.judge_in_pools(list(verifiers.read_cases(tmp_path / "cases.jsonl"))))
    assert [(one.case.kind, one.accepts) for one in judged] == [
        ("cases, choice: k", {"ours": True}),
        ("cases, choice: k", {"ours": False}),
    ]


def test_an_answer_is_never_another_answer_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "svamp.jsonl").write_text('{"answer": "7"}\n{"answer": "7"}\n')
    cases = list(verifiers.rewritten(tmp_path, 0))
    assert {(case.is_right, case.weight) for case in cases} == {(True, 2)}
