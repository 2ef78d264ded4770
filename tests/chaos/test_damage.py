"""Damage to files, whether a journal has its content still, and what a run may say about it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random

import pytest

from rlsp_async.chaos import corruption, damage
from rlsp_async.chaos.corruption import Corruption
from rlsp_async.chaos.faults import InjectedFault, ScheduledFault
from rlsp_async.replay.journal import Journal
from rlsp_async.replay.records import Learnt
from tests.replay.line import config, rows

REFUSED = ["step 3", "rlsp: /r/journal.sqlite is damaged: ...; put journal.sqlite back from a copy"]


@pytest.mark.parametrize("how", ["flip", "cut", "empty", "remove"])
def test_every_damage_changes_a_file(tmp_path: Path, how: str):
    path = tmp_path / "f"
    path.write_bytes(bytes(range(256)) * 40)
    damage.damage(path, how, Random(1))
    if how == "remove":
        assert not path.exists()
        return
    left = path.read_bytes()
    assert left != bytes(range(256)) * 40
    assert {"flip": len(left) == 10240, "cut": 1000 < len(left) < 9800, "empty": left == b""}[how]


def test_only_the_newest_checkpoint_is_damaged_and_only_beside_a_whole_older_one(tmp_path: Path):
    for step, files in ((10, ["DONE"]), (20, ["DONE"]), (30, [])):
        (tmp_path / "checkpoints" / f"step-{step:08d}").mkdir(parents=True)
        for name in files:
            (tmp_path / "checkpoints" / f"step-{step:08d}" / name).touch()
    newest = damage.newest_checkpoint(tmp_path, [])
    assert newest is not None and newest.name == "step-00000020"
    assert damage.newest_checkpoint(tmp_path, ["step-00000010"]) is None


def journal(run: Path) -> Path:
    run.mkdir()
    journal = Journal(run / "journal.sqlite", config())
    journal.commit([Learnt(stage="rlsp", index=1, row=b"abc")])
    journal.close()
    return run


def test_the_content_is_that_of_all_rows_and_of_the_log(tmp_path: Path):
    run = journal(tmp_path / "run")
    before = damage.content(run, tmp_path / "look")
    assert before == damage.content(run, tmp_path / "look") and len(before) > 10
    rows(run / "journal.sqlite", "UPDATE learnt SET row = x'00' RETURNING 1")
    changed = damage.content(run, tmp_path / "look")
    assert {table for table in before if before[table] != changed[table]} == {"learnt"}
    damage.copy_journal(run, tmp_path / "copy")
    (run / "journal.sqlite").write_bytes(b"x" * 5000)
    assert damage.content(run, tmp_path / "look") == {}
    damage.copy_journal(tmp_path / "copy", run)
    assert damage.content(run, tmp_path / "look") == changed


@pytest.mark.parametrize(
    ("code", "said", "wrong"),
    [
        (2, REFUSED, ""),
        (3, REFUSED, ""),
        (1, REFUSED, "it ended with code 1"),
        (0, REFUSED, "it ended with code 0"),
        (2, ["Traceback (most recent call last):", *REFUSED], "it ended with a traceback"),
        (2, ["rlsp: the port is taken"], "do not name the journal"),
        (2, [], "do not name the journal"),
        (2, [*REFUSED, "rlsp: what was done is kept; `rlsp run --resume /r` goes on from there"], "promised"),
    ],
)
def test_a_refusal_is_one_that_says_what_is_so(code: int, said: list[str], wrong: str):
    assert (damage.why_wrong(code, said) == "") is (wrong == "")
    assert wrong in damage.why_wrong(code, said)


class FakeLine:
    """A line whose next start ends, or opens the journal."""

    def __init__(self, run: Path, answer: tuple[int, list[str]] | None) -> None:
        self.run, self.answer, self.calls = run, answer, []

    async def end_everything(self) -> None:
        self.calls.append("end")

    def start_again(self) -> asyncio.Future[tuple[int, list[str]]]:
        ended = asyncio.get_running_loop().create_future()
        if self.answer is None:
            (self.run / "hub.json").touch()
        elif self.answer[0] >= 0:
            ended.set_result(self.answer)
        return ended

    def go_on(self) -> None:
        self.calls.append("go on")

    def kill(self, name: str) -> None:
        self.calls.append(name)

    def excuse(self, code: int, seconds: float) -> None:
        self.calls.append(str(code))


@pytest.mark.parametrize(
    ("answer", "wrong"),
    [
        ((2, REFUSED), ""),
        (None, "the run went on"),  # the planted bug: nothing is compared
        ((2, ["rlsp: no"]), "do not name the journal"),
        ((-1, []), "no word within"),
    ],
)
async def test_a_damaged_journal_is_refused_or_the_run_has_failed_and_gets_its_copy_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: tuple[int, list[str]] | None, wrong: str
):
    monkeypatch.setattr(corruption, "ANSWER_S", 0.2)
    run = journal(tmp_path / "run")
    before = damage.content(run, tmp_path / "look")
    line = FakeLine(run, answer)
    injected = InjectedFault(fault=ScheduledFault(at_s=1.0, kind="corrupt", what="journal cut"), wall_s=0.0)
    assert await Corruption(run, 5, line).carry_out(injected) == "done"
    assert (injected.wrong == "") is (wrong == "") and wrong in injected.wrong, injected.wrong
    assert line.calls[0] == "end" and line.calls[-1] == "go on"
    if answer is not None:
        assert damage.content(run, tmp_path / "look") == before


async def test_damage_that_hits_no_row_may_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = journal(tmp_path / "run")
    monkeypatch.setattr(damage, "damage", lambda path, how, random: None)
    injected = InjectedFault(fault=ScheduledFault(at_s=1.0, kind="corrupt", what="journal flip"), wall_s=0.0)
    await Corruption(run, 5, FakeLine(run, None)).carry_out(injected)
    assert injected.wrong == "" and "no row was hit" in injected.found


async def test_what_is_not_there_is_skipped_and_its_reader_is_killed(tmp_path: Path):
    line = FakeLine(tmp_path, None)
    for what in ("checkpoint cut", "weights flip", "notes empty"):
        injected = InjectedFault(fault=ScheduledFault(at_s=1.0, kind="corrupt", what=what), wall_s=0.0)
        assert "skipped" in await Corruption(tmp_path, 5, line).carry_out(injected)
    for step in (1, 2):
        (tmp_path / "checkpoints" / f"step-{step:08d}").mkdir(parents=True)
        (tmp_path / "checkpoints" / f"step-{step:08d}" / "DONE").write_text("{}" * 99)
    injected = InjectedFault(fault=ScheduledFault(at_s=1.0, kind="corrupt", what="checkpoint empty"), wall_s=0.0)
    assert await Corruption(tmp_path, 5, line).carry_out(injected) == "done"
    assert line.calls == ["learner-0"]
