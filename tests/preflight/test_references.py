"""Every reference answer judged before a run: what is counted, shown and refused."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from rlsp_async import cli, config
from rlsp_async.errors import DataError
from rlsp_async.preflight import references
from rlsp_async.preflight.references import References, judge_references, refuse_unreadable
from rlsp_async.runner.prepare import prepare

CHOICE = "Which?\nA) red\nB) blue\nC) green"


def settings(
    tmp_path: Path, golds: list[object], verifier: str = "choice", source: str = "rollouts", **task: object
) -> config.RunConfig:
    """A run whose training rows have these reference answers; held-out rows are not used."""
    path = tmp_path / "mine.jsonl"
    rows = [{"prompt": f"{number}. {CHOICE}", "answer": gold, "response": "r"} for number, gold in enumerate(golds)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = {"path_train": str(path), "path_test": str(path), "deduplicate": "off", "response_field": "response"}
    return config.convert(
        {
            "name": "r",
            "runs_dir": str(tmp_path / "runs"),
            "task": {"name": "jsonl", "options": options, "verifier": verifier, **task},
            "evaluation": {"prompts": 0},
            "verifier": {"processes": 1},
            "stages": {"a": {"steps": 1, "source": source}},
        },
        config.RunConfig,
        "settings",
    )


def test_rows_whose_own_answer_is_not_correct_are_counted_and_named(tmp_path: Path) -> None:
    cfg = settings(tmp_path, ["A", "blue", "none of it", "C", ["B", "yellow"], "A"])
    found = judge_references(cfg)
    assert found is not None
    assert (found.verifier[:7], found.total, found.judged, found.failed) == ("choice/", 6, 6, 2)
    assert found.examples[0].startswith("mine.jsonl:3: 'none of it' is error (DataError: the reference answer")
    assert found.examples[1].startswith("mine.jsonl:5: 'yellow' is error")
    assert found.sentences()[0] == (
        f"6 reference answers judged by {found.verifier}: 2 are not correct against themselves (33.3 %)"
    )
    with pytest.raises(DataError, match=r"task 'jsonl': 2 of 6 reference answers are not .* \(33.3 %\).*mine\.jsonl:3"):
        refuse_unreadable(cfg, found)
    refuse_unreadable(settings(tmp_path, ["A"], max_unreadable=0.34), found)


def test_answers_of_other_rows_are_not_correct_unless_they_are_equal(tmp_path: Path) -> None:
    found = judge_references(settings(tmp_path, ["A", "red", ["B", "C"], "C"]))
    assert found is not None
    assert (found.failed, found.swapped, found.accepted) == (0, 4, 1)
    assert found.accepted_examples == ["mine.jsonl:1: 'A' and mine.jsonl:2: 'red'"]
    assert found.sentences()[1:] == [
        "4 judged against the answer of another row: 1 are called correct (25.0 %)",
        "  mine.jsonl:1: 'A' and mine.jsonl:2: 'red'",
    ]


def test_a_row_without_an_answer_says_so(tmp_path: Path) -> None:
    cfg = settings(tmp_path, [None, "A"])
    found = judge_references(cfg)
    assert found is not None
    assert (found.failed, found.examples) == (1, ["mine.jsonl:1: has no reference answer"])


@pytest.mark.parametrize("share", [0.25, 0.24])
def test_the_bound_itself_is_allowed(tmp_path: Path, share: float) -> None:
    found = References("x/1", 4, 4, 1, ["row 3"], 0, 0, [])
    cfg = settings(tmp_path, ["A"], max_unreadable=share)
    if share == 0.25:
        refuse_unreadable(cfg, found)
    else:
        with pytest.raises(DataError, match="row 3"):
            refuse_unreadable(cfg, found)


@pytest.mark.parametrize(
    ("verifier", "source"), [("format", "rollouts"), ("regex", "rollouts"), ("choice", "demonstrations")]
)
def test_nothing_is_judged_without_reference_answers_or_their_use(tmp_path: Path, verifier: str, source: str) -> None:
    assert judge_references(settings(tmp_path, ["no label"], verifier, source)) is None


def test_when_the_time_is_over_the_rest_is_left_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(references, "CHUNK", 1)
    told: list[str] = []
    found = judge_references(settings(tmp_path, ["A", "B"] * 5), told.append, budget_s=0.0)
    assert found is not None
    assert (found.judged, found.total, found.swapped) == (4, 10, 0)
    assert found.sentences()[0].startswith("4 of 10 (the time was over; `rlsp check` judges all) reference answers")


def test_a_run_does_not_begin_and_a_check_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cfg = settings(tmp_path, ["A"] * 40 + ["no label"])
    with pytest.raises(DataError, match=r"1 of 41 reference answers .* \(2.4 %\)"):
        prepare(cfg, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    (tmp_path / "run.toml").write_text(config.to_toml(cfg))
    assert cli.main(["check", str(tmp_path / "run.toml")]) == 2
    told = capsys.readouterr().err
    assert "mine.jsonl:41: 'no label' is error" in told
    assert "raise task.max_unreadable = 0.02" in told
    assert cli.main(["check", "--quick", str(tmp_path / "run.toml")]) == 0
    assert cli.main(["check", str(tmp_path / "run.toml"), "task.max_unreadable=0.03"]) == 0
    assert "1 are not correct against themselves (2.4 %)" in capsys.readouterr().out


def test_code_and_countdown_are_judged_by_the_solutions_of_the_task(tmp_path: Path) -> None:
    path = tmp_path / "mbpp.jsonl"
    rows = [
        {"task_id": 600 + n, "prompt": f"p{n}", "code": f"def f(x): return x + {n}", "test_list": ["assert f(1) == 2"]}
        for n in (1, 2)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    cfg = settings(tmp_path, ["A"])
    task = config.TaskConfig(name="mbpp", options={"path_all": str(path)})
    found = judge_references(msgspec.structs.replace(cfg, task=task))
    assert found is not None
    assert (found.total, found.failed) == (2, 1)
    assert found.examples[0].startswith("mbpp.jsonl:2: 'assert f(1) == 2' is wrong")
