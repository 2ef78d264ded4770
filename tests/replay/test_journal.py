"""The journal: what was committed is there after any crash, and is given back as it was."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from rlsp_async.config import EvaluationConfig, LearnerConfig, ReplayConfig, StageConfig
from rlsp_async.errors import ConfigError, MachineError
from rlsp_async.messages import Work
from rlsp_async.replay.hub import Hub
from rlsp_async.replay.journal import Journal
from rlsp_async.replay.records import Manifest
from tests.replay.line import Bench, SmallTask, config, hello, rows


def restart(path: Path, cfg) -> tuple[Journal, Bench]:
    """A hub from what the journal holds; each of its events is committed at once."""
    journal = Journal(path, cfg)
    return journal, Bench(Hub(cfg, SmallTask(), journal.load()))


def commit(journal: Journal, bench: Bench) -> None:
    journal.commit(bench.records)


def crew(bench: Bench, step: int = 0, start: int = 1) -> None:
    for peer, role in ((b"s", "sampler"), (b"v", "verifier"), (b"l", "learner")):
        bench.say(peer, hello(role, step=step, start=start))


@pytest.mark.parametrize("num_moves", [1, 3, 5, 8, 13, 21])
def test_ledger_after_a_restart_equals_the_ledger_before(tmp_path, num_moves):
    cfg = config(evaluation=EvaluationConfig(prompts=3, rollouts=2, before=["rlsp"]), stage={"target_lag": 2})
    journal, bench = restart(tmp_path / "j.sqlite", cfg)
    crew(bench)
    for _ in range(num_moves):
        for peer in (b"s", b"v", b"l"):
            bench.step(peer)
    commit(journal, bench)
    journal.close()
    again, reborn = restart(tmp_path / "j.sqlite", cfg)
    old, new = bench.hub.state, reborn.hub.state
    assert new.ledger.records == old.ledger.records
    assert new.ledger.ready == old.ledger.ready
    assert new.ledger.bodies == old.ledger.bodies
    assert new.ledger.verdicts == old.ledger.verdicts
    assert new.ledger.tokens() == old.ledger.tokens()
    assert new.ledger.counts() == old.ledger.counts()
    assert (new.step, new.training.last_manifest, new.version) == (old.step, old.training.last_manifest, old.version)
    assert (new.phase, dict(new.counters), new.last_group_id) == (old.phase, dict(old.counters), old.last_group_id)
    assert new.training.manifests == old.training.manifests
    again.close()


def test_restarted_hub_finishes_the_run_with_the_same_manifests(tmp_path):
    cfg = config(stage={"target_lag": 2})
    journal, bench = restart(tmp_path / "j.sqlite", cfg)
    crew(bench)
    bench.until(lambda: bench.hub.state.training.last_manifest == 2, b"s", b"v")
    commit(journal, bench)
    journal.close()
    manifests = dict(bench.hub.state.training.manifests)
    again, reborn = restart(tmp_path / "j.sqlite", cfg)
    crew(reborn)
    sent = [m.job.batch for m in reborn.inbox[b"l"] if isinstance(m, Work)]
    assert [[g.group.group_id for g in batch.groups] for batch in sent] == [manifests[1].groups, manifests[2].groups]
    reborn.tick(0.0)
    reborn.tick(2.5)  # groups that a worker might still hold are leased again
    reborn.run(b"s", b"v", b"l")
    assert reborn.hub.state.ending.kind == "finished"
    assert {r.step for r in reborn.records if isinstance(r, Manifest)} == {3}
    commit(again, reborn)
    assert again.load().totals[0].num_groups == reborn.hub.state.ledger.trained == 6
    again.close()


def test_batches_of_old_steps_are_read_again(tmp_path):
    journal, bench = restart(tmp_path / "j.sqlite", config())
    crew(bench)
    bench.run(b"s", b"v", b"l")
    commit(journal, bench)
    [manifest] = [r for r in bench.records if isinstance(r, Manifest) and r.step == 2]
    batch = journal.batch(2)
    assert [g.group.group_id for g in batch] == manifest.groups
    assert all(len(g.verdicts) == 2 for g in batch)
    journal.close()


def test_tokens_that_no_kept_checkpoint_needs_are_deleted_and_records_stay(tmp_path):
    cfg = config(stages={"rlsp": StageConfig(steps=8, groups_per_step=2)}, learner=LearnerConfig(keep_checkpoints=2))
    journal, bench = restart(tmp_path / "j.sqlite", cfg)
    crew(bench)
    bench.until(lambda: bench.hub.state.step == 8, b"s", b"v", b"l")
    from rlsp_async.replay.records import Stepped

    stepped = [r for r in bench.records if isinstance(r, Stepped)]
    records = [msgspec.structs.replace(r, forget_to=5) if r is stepped[-1] else r for r in bench.records]
    journal.commit(records)
    db = sqlite3.connect(tmp_path / "j.sqlite")
    assert db.execute("SELECT count(*) FROM groups").fetchone() == (16,)
    assert db.execute("SELECT count(*) FROM bodies").fetchone() == (6,)  # steps 6, 7, 8
    db.close()
    with pytest.raises(MachineError, match="not there any more"):
        journal.batch(5)
    assert len(journal.batch(6)) == 2
    journal.close()


def test_other_settings_are_refused_by_the_name_of_their_section(tmp_path):
    Journal(tmp_path / "j.sqlite", config()).close()
    Journal(tmp_path / "j.sqlite", config(runs_dir="elsewhere")).close()
    with pytest.raises(ConfigError, match=r"other settings in \[stages\]"):
        Journal(tmp_path / "j.sqlite", config(stage={"max_lag": 9}))


def test_incarnation_rises_with_each_start_and_the_run_keeps_its_age(tmp_path):
    journal = Journal(tmp_path / "j.sqlite", config())
    first = journal.load()
    journal.close()
    journal = Journal(tmp_path / "j.sqlite", config())
    second = journal.load()
    journal.close()
    assert (first.incarnation, second.incarnation) == (1, 2)
    assert first.created == second.created


def test_full_disk_is_one_sentence_and_commits_nothing(tmp_path):
    journal, bench = restart(tmp_path / "j.sqlite", config())
    crew(bench)
    bench.run(b"s", b"v", b"l")
    journal.pragma("max_page_count = 1")  # SQLite then says: database or disk is full
    huge = [
        msgspec.structs.replace(r, body=msgspec.structs.replace(r.body, prompt_ids=b"\0" * 4_000_000))
        if getattr(r, "body", None) is not None
        else r
        for r in bench.records
    ]
    with pytest.raises(MachineError, match="full"):
        journal.commit(huge)
    assert rows(journal.path, "SELECT count(*) FROM groups") == [(0,)]
    journal.close()


def test_file_that_is_no_journal_is_one_sentence(tmp_path):
    (tmp_path / "j.sqlite").write_bytes(b"this is no database" * 100)
    with pytest.raises(MachineError, match="not a database"):
        Journal(tmp_path / "j.sqlite", config())


@pytest.mark.parametrize(("durability", "level"), [("power", 2), ("process", 1)])
def test_durability_sets_what_is_synced(tmp_path, durability, level):
    journal = Journal(tmp_path / "j.sqlite", config(replay=ReplayConfig(durability=durability)))
    assert journal.pragma("synchronous") == level
    assert journal.pragma("journal_mode") == "wal"
    journal.close()


CHILD = """
import sys
from pathlib import Path
from rlsp_async.replay.records import GroupRecord, Put
from rlsp_async.replay.journal import Journal
from tests.replay.line import config
journal = Journal(Path(sys.argv[1]), config())
first = journal.load().last_group_id + 1
for group_id in range(first, first + 100000):
    journal.commit([Put(record=GroupRecord(group_id=group_id, stage="rlsp"))])
    print(group_id, flush=True)
"""


def test_kill_9_loses_no_acknowledged_group(tmp_path):
    acked: set[int] = set()
    for num_lines in (5, 60, 200):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path / "j.sqlite")],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONPATH": "."},
            text=True,
        )
        assert child.stdout is not None
        for _ in range(num_lines):
            acked.add(int(child.stdout.readline()))
        child.send_signal(signal.SIGKILL)
        rest = child.stdout.read()
        acked |= {int(line) for line in rest.split("\n")[:-1]}
        child.stdout.close()
        child.wait()
    journal = Journal(tmp_path / "j.sqlite", config())
    stored = [group_record.group_id for group_record in journal.load().groups]
    journal.close()
    assert len(acked) >= 265
    assert acked <= set(stored)
    assert len(stored) == len(set(stored))
