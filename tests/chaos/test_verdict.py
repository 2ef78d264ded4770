"""Recovery times and acknowledgements, from a journal and logs written by hand."""

import sqlite3
from pathlib import Path

import msgspec
import orjson

from rlsp_async.chaos.faults import InjectedFault, ScheduledFault
from rlsp_async.chaos.harness import HarnessResult
from rlsp_async.chaos.verdict import find_lost, judge_run, measure_recovery, quantile, summarise
from rlsp_async.config import RunConfig, StageConfig
from rlsp_async.replay.sql import SCHEMA_VERSION


def make_run(path: Path) -> Path:
    (path / "logs").mkdir(parents=True)
    db = sqlite3.connect(path / "journal.sqlite")
    db.executescript("""
        CREATE TABLE run (key, value);
        CREATE TABLE steps (step, at_s); INSERT INTO steps VALUES (1, 1.0), (2, 5.0), (3, 9.5);
        CREATE TABLE groups (group_id, state); INSERT INTO groups VALUES (1, 'trained'), (2, 'sampled'), (3, 'issued');
        CREATE TABLE events (at_s, kind, worker);
        INSERT INTO events VALUES (0.1, 'hub_start', ''), (0.5, 'joined', 'sampler-0'), (4.0, 'joined', 'sampler-0'),
                                  (6.5, 'hub_start', '');""")
    cfg = RunConfig(name="c", stages={"rl": StageConfig()})
    facts = {"created": "1000.0", "schema": str(SCHEMA_VERSION), "config": orjson.dumps(msgspec.to_builtins(cfg))}
    db.executemany("INSERT INTO run VALUES (?, ?)", facts.items())
    db.commit()
    db.close()
    return path


def log(run: Path, name: str, *rows: tuple[str, int]) -> None:
    lines = [orjson.dumps({"event": "acknowledged", "role": role, "key": key, "worker": name}) for role, key in rows]
    (run / "logs" / f"{name}.jsonl").write_bytes(b"\n".join(lines) + b"\n")


def injected(kind: str, target: str, at_s: float, outcome: str = "done") -> InjectedFault:
    return InjectedFault(
        fault=ScheduledFault(at_s=at_s, kind=kind, target=target), wall_s=1000.0 + at_s, outcome=outcome
    )


def test_recovery_is_read_from_the_history(tmp_path: Path):
    ones = [
        injected("kill", "sampler-0", 2.0),
        injected("kill", "replay-0", 6.0),
        injected("kill", "sampler-0", 9.9),
        injected("stop", "learner-0", 1.5),
        injected("kill", "sampler-0", 3.0, "skipped: it was not running"),
    ]
    measure_recovery(make_run(tmp_path), ones)
    assert [(one.back_s, one.step_s) for one in ones] == [
        (2.0, 3.0),
        (0.5, 3.5),
        (-1.0, -1.0),
        (-1.0, 3.5),
        (-1.0, -1.0),
    ]


def test_recovery_follows_the_clock_of_the_run_where_wall_clocks_were_set(tmp_path: Path):
    run = make_run(tmp_path)
    with sqlite3.connect(run / "journal.sqlite") as db:
        db.execute("INSERT INTO run VALUES ('clock', 'boot 500.0')")
    one = injected("kill", "sampler-0", 7200.0)  # two hours ahead
    one.monotonic_s = 502.0
    measure_recovery(run, [one])
    assert (one.back_s, one.step_s) == (2.0, 3.0)


def test_what_must_not_have_happened_fails_the_run(tmp_path: Path):
    one = injected("corrupt", "", 1.0)
    one.wrong = "the run went on"
    cfg = RunConfig(name="c", stages={"rl": StageConfig()}, runs_dir=str(tmp_path))
    result = judge_run(cfg, HarnessResult(finished=True, faults=[one]), 0)
    assert not result.passed and result.reasons[0] == "corrupt : the run went on"


def test_the_summary_leaves_out_what_did_not_happen():
    ones = [injected("kill", "sampler-0", 0.0) for _ in range(10)] + [
        injected("kill", "sampler-0", 0.0, "skipped: gone")
    ]
    for number, one in enumerate(ones):
        one.back_s, one.step_s = float(number), -1.0
    (row,) = summarise(ones)
    assert (row.num, row.back_median_s, row.back_90_s, row.back_most_s, row.step_most_s) == (10, 4.0, 8.0, 9.0, -1.0)


def test_quantiles_are_values_that_occurred():
    assert [quantile([1.0, 2.0, 3.0, 4.0], share) for share in (0.0, 0.25, 0.5, 0.9, 1.0)] == [1.0, 1.0, 2.0, 4.0, 4.0]
    assert quantile([], 0.5) == -1.0


def test_what_was_acknowledged_is_looked_up(tmp_path: Path):
    run = make_run(tmp_path)
    log(run, "sampler-0", ("sampler", 1), ("sampler", 2))
    log(run, "verifier-0", ("verifier", 1))
    log(run, "learner-0", ("learner", 3))
    assert find_lost(run) == (4, [])


def test_what_is_missing_is_named(tmp_path: Path):
    run = make_run(tmp_path)
    log(run, "sampler-0", ("sampler", 3), ("sampler", 77))
    log(run, "verifier-0", ("verifier", 2))
    log(run, "learner-0", ("learner", 4))
    num, missing = find_lost(run)
    assert num == 4 and len(missing) == 4
    assert "sampler-0 was told that 77 is stored, and it is not" in missing


def test_a_torn_line_is_nothing_and_no_line_at_all_is_suspicious(tmp_path: Path):
    run = make_run(tmp_path)
    (run / "logs" / "sampler-0.jsonl").write_bytes(b'{"event": "acknowledged", "ro{"event":"x"}\n')
    num, missing = find_lost(run)
    assert num == 0 and "no acknowledgement was found" in missing[0]
