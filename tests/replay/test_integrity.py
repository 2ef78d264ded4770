"""A journal that is not what was written is refused in one sentence before anything is written to it."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from rlsp_async.config import EvaluationConfig, ReplayConfig
from rlsp_async.errors import MachineError
from rlsp_async.messages import StepReport
from rlsp_async.replay import integrity
from rlsp_async.replay.hub import Hub
from rlsp_async.replay.journal import Journal
from rlsp_async.replay.records import Event, Learnt, Published, Repeated
from rlsp_async.replay.run_clock import run_clock
from rlsp_async.replay.sql import SCHEMA, SEALED, seal
from tests.replay.line import Bench, SmallTask, config, hello, rows

CONFIG = config(evaluation=EvaluationConfig(prompts=3, rollouts=2, before=["rlsp"]), stage={"target_lag": 2})


def written(directory: Path) -> Path:
    """A journal after a whole small run, with a row in every table."""
    journal = Journal(directory / "journal.sqlite", CONFIG)
    bench = Bench(Hub(CONFIG, SmallTask(), journal.load()))
    for peer, role in ((b"s", "sampler"), (b"v", "verifier"), (b"l", "learner")):
        bench.say(peer, hello(role, step=0))
    bench.run(b"s", b"v", b"l")
    assert bench.hub.state.ending.kind == "finished"
    for record in bench.records:
        journal.commit([record])
    report = next(record.report for record in bench.records if type(record).__name__ == "Stepped")
    journal.commit([Repeated(report=report), Published(report=report), Learnt(stage="rlsp", index=3, row=b"r")])
    journal.close()
    return journal.path


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("original"))


@pytest.fixture
def path(original: Path, tmp_path: Path) -> Path:
    shutil.copytree(original.parent, tmp_path / "run")
    return tmp_path / "run" / original.name


def refusal(path: Path) -> str:
    """The one sentence, which leaves every file as it is."""
    before = {file.name: file.read_bytes() for file in path.parent.iterdir() if not file.name.endswith("-shm")}
    with pytest.raises(MachineError) as e:
        Journal(path, CONFIG)
    after = {file.name: file.read_bytes() for file in path.parent.iterdir() if not file.name.endswith("-shm")}
    assert {name: content for name, content in after.items() if content} == {n: c for n, c in before.items() if c}
    assert "\n" not in str(e.value)
    return str(e.value)


def test_what_was_written_is_whole_and_opens_again(path: Path):
    assert integrity.find_damage(path) == ""
    for _ in range(2):
        Journal(path, CONFIG).close()
    assert integrity.find_damage(path) == ""
    tables = [table for table in SEALED if table not in ("successes", "amendments")]
    assert [table for table in tables if not rows(path, f"SELECT 1 FROM {table} WHERE seal IS NOT NULL")] == []
    assert [table for table in tables if rows(path, f"SELECT 1 FROM {table} WHERE seal IS NULL")] == []


@pytest.mark.parametrize("table", [table for table in SEALED if table not in ("successes", "amendments")])
def test_a_value_that_changed_in_any_column_of_any_table_is_found(path: Path, table: str):
    for column in SEALED[table]:
        [(kind, old)] = rows(path, f"SELECT typeof({column}), {column} FROM {table} LIMIT 1")
        new = {"integer": "{c} + 1000000", "real": "{c} + 0.5", "text": "{c} || 'x'", "null": "0.5"}.get(
            kind, "CAST({c} || x'00' AS BLOB)"
        )
        where = f"rowid = (SELECT rowid FROM {table} LIMIT 1)"
        if "WITHOUT ROWID" in SCHEMA.split(f"EXISTS {table} ")[1].split(";")[0]:
            first = SEALED[table][0]
            where = f"{first} = (SELECT {first} FROM {table} LIMIT 1)"
        copy = path.with_name("copy.sqlite")
        shutil.copy(path, copy)
        rows(copy, f"UPDATE OR REPLACE {table} SET {column} = {new.format(c=column)} WHERE {where}")
        found = integrity.find_damage(copy)
        assert f"rows of its table {table} (" in found and "not what was written" in found, (column, old, found)


@pytest.mark.parametrize("table", ["manifests", "steps"])
def test_a_step_that_is_gone_is_found(path: Path, table: str):
    rows(path, f"DELETE FROM {table} WHERE step = 2 RETURNING step")
    assert f"1 of the 3 rows of its table {table} are gone" in refusal(path)


def test_tokens_are_compared(path: Path):
    shutil.rmtree(path.parent)
    path.parent.mkdir()
    journal = Journal(path, CONFIG)
    bench = Bench(Hub(CONFIG, SmallTask(), journal.load()))
    for peer, role in ((b"s", "sampler"), (b"v", "verifier"), (b"l", "learner")):
        bench.say(peer, hello(role, step=0))
    bench.until(lambda: bench.hub.state.step == 1, b"s", b"v", b"l")
    journal.commit(bench.records)
    journal.close()
    [(group_id,)] = rows(path, "SELECT max(group_id) FROM bodies")
    rows(path, f"UPDATE bodies SET body = CAST(body || x'00' AS BLOB) WHERE group_id = {group_id} RETURNING 1")
    assert f"({group_id}) are not those that came" in refusal(path)


def flip(path: Path, at: int, num: int = 64) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        old = file.read(num)
        file.seek(at)
        file.write(bytes(byte ^ 0x5A for byte in old))


def content(path: Path) -> object:
    """Every row of every table, without indexes; None when the file cannot be read."""
    try:
        tables = [name for (name,) in rows(path, "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY 1")]
        return {table: sorted(map(repr, rows(path, f"SELECT * FROM {table} NOT INDEXED"))) for table in tables}
    except sqlite3.Error:
        return None


def test_bytes_that_flip_anywhere_in_the_file_change_nothing_or_are_found(path: Path):
    whole, num_found = content(path), 0
    for at in range(0, path.stat().st_size, 1024):
        copy = path.with_name("copy.sqlite")
        shutil.copy(path, copy)
        flip(copy, at)
        found = integrity.find_damage(copy)
        num_found += bool(found)
        assert found or content(copy) == whole, f"64 bytes at {at} changed the content, and nothing was found"
    assert num_found > 10


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda path: path.write_bytes(b""), "is damaged: the file is empty"),
        (lambda path: path.unlink(), "is damaged: the file is gone"),
        (lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]), "is damaged: "),
        (lambda path: path.write_bytes(b"this is no database" * 100), "is damaged: file is not a database"),
        (lambda path: flip(path, 0), "is damaged: file is not a database"),
    ],
    ids=["empty", "gone", "half", "another file", "first page"],
)
def test_a_file_that_is_no_journal_any_more_is_refused_and_left(
    path: Path, damage: Callable[[Path], object], says: str
):
    damage(path)
    assert says in refusal(path)


def crashed(path: Path) -> Path:
    """A copy as a kill leaves it: the newest commits are in the log only."""
    journal = Journal(path, CONFIG)
    journal.commit([Learnt(stage="rlsp", index=4, row=b"s")])
    journal.commit([Learnt(stage="rlsp", index=5, row=b"t")])
    copy = path.parent.with_name("crashed")
    shutil.copytree(path.parent, copy)
    journal.close()
    assert (copy / "journal.sqlite-wal").stat().st_size > 0
    return copy / path.name


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size - 4096])


@pytest.mark.parametrize(
    "damage",
    [
        Path.unlink,
        lambda wal: wal.write_bytes(b""),
        cut,
        lambda wal: flip(wal, wal.stat().st_size - 2000),
        lambda wal: flip(wal, 0),
    ],
    ids=["gone", "empty", "cut", "flipped", "header"],
)
def test_commits_that_were_in_a_damaged_log_are_missed(path: Path, damage: Callable[[Path], object]):
    copy = crashed(path)
    shutil.copytree(copy.parent, copy.parent.with_name("healthy"))
    damage(copy.with_name("journal.sqlite-wal"))
    said = refusal(copy)
    assert "has lost its end: it holds" in said and "journal.sqlite-wal or pages" in said
    assert "journal.tail" in said
    copy.with_name("journal.tail").unlink()  # what the sentence offers
    Journal(copy, CONFIG).close()
    Journal(copy.parent.with_name("healthy") / copy.name, CONFIG).close()


def test_a_run_whose_commits_may_be_lost_goes_on_and_says_so(path: Path, caplog: pytest.LogCaptureFixture):
    from structlog.testing import capture_logs

    copy = crashed(path)
    copy.with_name("journal.sqlite-wal").unlink()
    cfg = config(
        evaluation=CONFIG.evaluation, stage={"target_lag": 2}, replay=ReplayConfig(durability="process", timeout_s=10.0)
    )
    with capture_logs() as logs:
        Journal(copy, cfg).close()
    assert ["has lost its end" in line["event"] for line in logs] == [True]
    with capture_logs() as logs:
        Journal(copy, cfg).close()  # what it holds is now what is known
    assert logs == []


@pytest.mark.parametrize("size", [1, 300, 600, 8000])
def test_what_is_left_of_a_first_page_is_no_new_journal(path: Path, size: int):
    """To SQLite a file of some hundred bytes is an empty database; all commits may have been in the log."""
    path.write_bytes(path.read_bytes()[:size])
    said = refusal(path)
    assert "has lost its end: it holds 0 of" in said or "is damaged: " in said


@pytest.mark.parametrize("damage", [b"", b"garbage", b"\xff" * 21, None])
def test_without_a_number_beside_it_the_journal_is_believed(path: Path, damage: bytes | None):
    tail = path.with_suffix(".tail")
    tail.unlink() if damage is None else tail.write_bytes(damage)
    Journal(path, CONFIG).close()
    assert integrity.read_tail(path) == integrity.num_commits(path) > 0


def test_the_number_beside_the_journal_is_never_ahead_of_it(tmp_path: Path):
    journal = Journal(tmp_path / "j.sqlite", CONFIG)
    for index in range(5):
        journal.commit([Learnt(stage="rlsp", index=index, row=b"r")])
        assert integrity.read_tail(journal.path) == integrity.num_commits(journal.path) == index + 2
    with pytest.raises(TypeError):
        journal.commit([Learnt(stage="rlsp", index=9, row=object())])  # rolled back
    assert integrity.read_tail(journal.path) == integrity.num_commits(journal.path) == 6
    journal.close()


def test_a_comparison_that_takes_too_long_ends_and_the_journal_is_used(path: Path, monkeypatch: pytest.MonkeyPatch):
    from structlog.testing import capture_logs

    monkeypatch.setattr(integrity, "STEPS", 1)
    with capture_logs() as logs:
        assert integrity.find_damage(path, bound_s=0.0) == ""
    assert "not to its end (its rows)" in logs[-1]["event"] or "not to its end (the rows of" in logs[-1]["event"]


def test_a_seal_is_the_same_for_what_sqlite_gives_back(path: Path):
    report = StepReport(step=3, metrics={"loss": float("nan")}, weights=None)
    journal = Journal(path, CONFIG)
    journal.commit([Repeated(report=report, at_s=4), Event(kind="gone", at_s=7)])
    journal.close()
    assert integrity.find_damage(path) == ""
    assert seal((1, "x")) == seal([1, "x"])
    assert seal((1, "x")) != seal(("1", "x")) and len(seal(())) == 8


@pytest.mark.parametrize(
    ("before", "boot", "age_s", "monotonic_s", "clock"),
    [
        ("", "a", 0.0, 50.0, "a 50.0"),  # a new run
        ("a 50.0", "a", 9e9, 80.0, "a 50.0"),  # the hub again, whatever the wall clock says
        ("a 50.0", "b", 700.0, 5.0, "b -695.0"),  # a reboot
        ("", "a", 700.0, 5.0, "a -695.0"),  # a journal of an older version
        ("a 50.0", "a", 700.0, 5.0, "a -695.0"),  # the same name, another clock
        ("- 50.0", "", 700.0, 80.0, "- -620.0"),  # a machine without a name
    ],
)
def test_the_clock_of_a_run_follows_the_machine(before: str, boot: str, age_s: float, monotonic_s: float, clock: str):
    assert run_clock(before, age_s, boot, monotonic_s) == clock
