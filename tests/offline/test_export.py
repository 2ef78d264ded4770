"""`rlsp export`: every judged rollout that the journal holds, demonstrations that the task jsonl reads."""

from __future__ import annotations

import io
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from rlsp_async.config import ReplayConfig, RunConfig
from rlsp_async.errors import DataError, MachineError
from rlsp_async.offline.export import export_rows
from rlsp_async.replay.hub import Hub
from rlsp_async.replay.journal import Journal
from rlsp_async.tasks.dataset import Config, load
from rlsp_async.tasks.readers import read_rows
from tests.replay.line import SmallTask, config, hello
from tests.replay.test_policies import JudgingBench, L, S, V


def finished(path: Path, **replay: Any) -> RunConfig:
    """A run of three steps, whose every group has one right rollout of two."""
    cfg = config(replay=ReplayConfig(**replay))
    journal = Journal(path / "journal.sqlite", cfg)
    line = JudgingBench(Hub(cfg, SmallTask(), journal.load(), 0.0), lambda group_id, place: place == 1)
    line.say(S, hello("sampler", credit=2))
    line.say(V, hello("verifier"))
    line.say(L, hello("learner", step=0))
    line.run(S, V, L)
    journal.commit(line.records)
    journal.close()
    return cfg


def exported(run: Path, **options: Any) -> list[dict[str, Any]]:
    out = io.StringIO()
    assert export_rows(run, out=out, **options) == 0
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_rollouts_come_out_in_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    finished(tmp_path)
    rows = exported(tmp_path, tokens=True)
    assert [(row["group"], row["rollout"]) for row in rows] == [(g, r) for g in range(1, 7) for r in (0, 1)]
    assert rows[1] == {
        "prompt": "0 + 1 =",
        "answer": "1",
        "response": "2",
        "status": "correct",
        "parts": {"correct": 1.0},
        "prompt_id": "small/train/0",
        "group": 1,
        "rollout": 1,
        "stage": "rlsp",
        "finish": "stop",
        "temperature": 1.0,
        "propensity": 1.0,
        "prompt_ids": [1, 2],
        "token_ids": [7, 7, 7],
        "logprobs": [-1.0, -1.0, -1.0],
        "versions": [0, 0, 0],
    }
    assert "token_ids" not in exported(tmp_path)[0]
    assert capsys.readouterr().err.endswith("rlsp export: 12 rollouts\n")


def test_demonstrations_are_what_the_task_jsonl_reads(tmp_path: Path):
    finished(tmp_path)
    rows = exported(tmp_path, what="demonstrations")
    assert rows == [{"prompt": f"{i} + 1 =", "answer": str(i + 1), "response": "2"} for i in range(6)]
    file = tmp_path / "demonstrations.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    task = load(
        Config(
            path_train=str(file), path_test=str(file), response_field="response", template="{prompt}", deduplicate="off"
        ),
        0,
    )
    prompt, response = task.demonstration(3)
    assert (prompt.text, prompt.answer, response) == ("3 + 1 =", "4", "2")


def test_what_was_pruned_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    finished(tmp_path)
    with closing(sqlite3.connect(tmp_path / "journal.sqlite")) as journal, journal:
        journal.execute("DELETE FROM bodies WHERE group_id < 3")
    assert len(exported(tmp_path)) == 8
    assert "8 rollouts; the tokens of 2 more groups were pruned (replay.retention)" in capsys.readouterr().err


def test_a_file_is_written_or_the_reason_is_said(tmp_path: Path):
    finished(tmp_path)
    assert exported(tmp_path, path_out=str(tmp_path / "out.jsonl")) == []
    assert (tmp_path / "out.jsonl").read_text(encoding="utf-8").count("\n") == 12
    with pytest.raises(MachineError, match="cannot be written"):
        exported(tmp_path, path_out=str(tmp_path / "no" / "out.jsonl"))


def test_an_unknown_stage_is_refused(tmp_path: Path):
    finished(tmp_path)
    with pytest.raises(DataError, match="has no stage 'sft'; there is rlsp"):
        exported(tmp_path, stage="sft")
    assert len(exported(tmp_path, stage="rlsp")) == 12


def test_parquet_holds_the_same_rows(tmp_path: Path):
    pytest.importorskip("pyarrow")
    finished(tmp_path)
    assert exported(tmp_path, path_out=str(tmp_path / "out.parquet"), tokens=True) == []
    assert [row for _, row in read_rows(tmp_path / "out.parquet")] == exported(tmp_path, tokens=True)
    with pytest.raises(MachineError, match="cannot be written"):
        exported(tmp_path, path_out=str(tmp_path / "no" / "out.parquet"))
