"""The numbers of starts rise whatever happens to clocks and files."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlsp_async.replay.journal import Journal
from rlsp_async.replay.records import Cursor
from rlsp_async.service import Service
from rlsp_async.starts import START, StartCounter
from tests.replay.line import config


def test_numbers_rise_over_processes_and_clocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    given = [StartCounter(tmp_path).next() for _ in range(3)]
    for hours in (-1, 1, -24, 10 * 365 * 24):
        monkeypatch.setattr(time, "time_ns", lambda hours=hours: 1_700_000_000_000_000_000 + hours * 3_600_000_000_000)
        given.append(StartCounter(tmp_path).next())
    code = f"from rlsp_async.starts import StartCounter; from pathlib import Path; print(StartCounter(Path({str(tmp_path)!r})).next())"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    given.append(int(done.stdout))
    assert given == [1, 2, 3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize("damage", [b"", b"garbage", b"\xff\x00", b"9" * 40, None])
def test_a_damaged_or_missing_file_never_lowers_a_number(tmp_path: Path, damage: bytes | None):
    counter = StartCounter(tmp_path)
    assert [counter.next(), counter.next()] == [1, 2]
    path = tmp_path / "starts"
    path.unlink() if damage is None else path.write_bytes(damage)
    assert counter.next() == 3


def test_a_run_of_an_older_version_goes_on_above_its_numbers(tmp_path: Path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "OWNER").write_text("1763695276000000000\n")
    assert StartCounter(tmp_path).next() == 1763695276000000001
    (tmp_path / "starts").unlink()
    (tmp_path / "checkpoints" / "OWNER").write_text("9" * 19)  # above what a journal holds
    journal = Journal(tmp_path / "journal.sqlite", config())
    journal.commit([Cursor(name="learner", value=1763695276000000777)])
    assert StartCounter(tmp_path).next() == 1763695276000000778
    journal.close()


def test_a_service_takes_the_number_of_its_supervisor_else_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    cfg = config(runs_dir=str(tmp_path))
    by_hand = Service(cfg, "sampler", "sampler-0")
    assert (by_hand.incarnation, by_hand.is_supervised) == (1, False)
    monkeypatch.setenv(START, "41")
    monkeypatch.setenv("RLSP_SUPERVISOR_PID", "1")
    numbered = Service(cfg, "sampler", "sampler-0")
    assert (numbered.incarnation, numbered.is_supervised) == (41, True)
