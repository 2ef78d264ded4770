"""May the run that is there go on with these settings?"""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from rlsp_async.errors import ConfigError, DataError
from rlsp_async.messages import StepReport
from rlsp_async.replay.journal import Journal
from rlsp_async.replay.records import Manifest, Stepped
from rlsp_async.runner import resume
from rlsp_async.runner.run import what_is_kept
from tests.replay import line
from tests.runner.given import made, settings


def test_a_directory_with_something_else_in_it(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    assert not resume.is_run(tmp_path / "x")
    (tmp_path / "x" / "thesis.tex").touch()
    with pytest.raises(ConfigError, match=r"is no run \(it has no config.toml\); choose another name"):
        resume.is_run(tmp_path / "x")


def test_a_run_with_other_settings_names_them(tmp_path: Path) -> None:
    cfg = made(tmp_path, seed=3)
    resume.require_same(cfg, cfg.directory)
    changed = settings(tmp_path, seed=4, sampler={"count": 2})
    with pytest.raises(ConfigError, match=r"seed was 3 and is 4 now; choose another"):
        resume.require_same(changed, cfg.directory)


def test_a_refused_change_names_the_way_to_what_is_wanted(tmp_path: Path) -> None:
    cfg = made(tmp_path)
    name = next(iter(cfg.stages))
    stages = {name: msgspec.structs.replace(cfg.stages[name], steps=40)}
    with pytest.raises(ConfigError) as caught:
        resume.require_same(msgspec.structs.replace(cfg, stages=stages), cfg.directory)
    assert "begin a new run" not in str(caught.value)  # it has no result yet
    (cfg.directory / "final").mkdir()
    with pytest.raises(
        ConfigError, match=rf"begin a new run with its result: name=\.\.\., model\.path={cfg.directory}/final"
    ):
        resume.require_same(msgspec.structs.replace(cfg, stages=stages), cfg.directory)
    learner = msgspec.structs.replace(cfg.learner, tokens_per_microbatch=64)
    with pytest.raises(
        ConfigError, match=r"learner\.gradient_checkpointing=true, which needs less memory, may be changed"
    ):
        resume.require_same(msgspec.structs.replace(cfg, learner=learner), cfg.directory)
    learner = msgspec.structs.replace(cfg.learner, gradient_checkpointing=True)
    resume.require_same(msgspec.structs.replace(cfg, learner=learner), cfg.directory)


def test_how_the_work_is_done_may_change(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cfg = made(tmp_path, seed=3)
    again = settings(tmp_path, seed=3, sampler={"count": 2})
    changed = resume.require_same(again, cfg.directory)
    assert changed == ["sampler.count was 1 and is 2 now"]
    resume.take_over(again, changed)
    assert "sampler.count was 1 and is 2 now" in capsys.readouterr().out
    assert resume.load_interrupted(cfg.directory, []).sampler.count == 2


def test_a_damaged_report_is_written_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for content in (b"", b"{", b"\xff\x00", b'{"finished": 3}'):
        (tmp_path / "report.json").write_bytes(content)
        assert not resume.is_finished(tmp_path)
        assert "report.json: cannot be read" in capsys.readouterr().out


def test_a_moved_run_is_resumed_where_it_lies(tmp_path: Path) -> None:
    cfg = made(tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "b")
    for place in (tmp_path / "b" / cfg.name, tmp_path / "b" / cfg.name / "config.toml"):
        assert resume.load_interrupted(place, []).directory == tmp_path / "b" / cfg.name
    with pytest.raises(DataError, match="is no run: there is no config.toml in it"):
        resume.load_interrupted(tmp_path, [])


def test_a_run_that_was_moved_is_the_same_run(tmp_path: Path) -> None:
    cfg = made(tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "b")
    resume.require_same(settings(tmp_path / "b"), tmp_path / "b" / cfg.name)


def journal_of(run: Path) -> Path:
    run.mkdir()
    (run / "checkpoints" / "step-00000002").mkdir(parents=True)
    (run / "checkpoints" / "step-00000002" / "DONE").write_text("{}")
    (run / "checkpoints" / "OWNER").write_text("1\n")
    journal = Journal(run / "journal.sqlite", line.config(runs_dir=str(run.parent)))
    for step in (1, 2):
        query = "INSERT INTO manifests (step, stage, incarnation, at_s, manifest) VALUES (?, 'rlsp', 1, 0.0, ?)"
        manifest = Manifest(step=step, stage="rlsp", stage_step=step, groups=[])
        with closing(sqlite3.connect(journal.path)) as db, db:
            db.execute(query, (step, msgspec.msgpack.encode(manifest)))
        journal.commit([Stepped(report=StepReport(step=step, checkpoint=step), stage="rlsp")])
    journal.close()
    return run


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("none", ""),
        ("wal", ""),
        ("journal", "journal.sqlite is gone"),
        ("half", "journal.sqlite"),
        ("checkpoints", "holds no whole checkpoint"),
        ("done", "holds no whole checkpoint"),
        ("newer", "is newer than the journal"),
        ("cut", "holds 3 of 5 commits"),
        ("row", "is damaged (1 of the 2 rows of its table steps (2) are not what was written)"),
        ("lost", "the journal lost its end"),
    ],
)
def test_resume_is_promised_only_where_it_can_go_on(tmp_path: Path, damage: str, says: str):
    run, reason = journal_of(tmp_path / "test"), ""
    path, step = run / "journal.sqlite", run / "checkpoints" / "step-00000002"
    match damage:
        case "wal":
            (run / "journal.sqlite-wal").unlink(missing_ok=True)
        case "journal":
            path.unlink()
        case "half":
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        case "checkpoints":
            shutil.rmtree(run / "checkpoints")
            (run / "checkpoints").mkdir()
        case "done":
            (step / "DONE").unlink()
        case "newer":
            step.rename(run / "checkpoints" / "step-00000009")
        case "cut":
            (run / "journal.tail").write_text("00000000000000000005\n")
        case "row":
            line.rows(path, "UPDATE steps SET report = x'80' WHERE step = 2 RETURNING step")
        case "lost":
            reason = "learner-0 starts from step 9, ...: they belong to different runs, or the journal lost its end"
    said = what_is_kept(run, reason)
    assert ("--resume" in said) is (not says)
    assert says in said
