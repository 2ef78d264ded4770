"""What a transaction refuses: each invariant is broken by hand once, and nothing of that transaction is stored."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import msgspec
import pytest

from rlsp_async.config import StageConfig
from rlsp_async.errors import ConfigError, InvariantError
from rlsp_async.replay.hub import Hub
from rlsp_async.replay.journal import Journal, find_violation, is_whole
from rlsp_async.replay.records import Manifest, Put, Stepped
from tests.replay.line import Bench, SmallTask, config, hello, rows


def recorded() -> list:
    """The records of an honest run of three steps."""
    bench = Bench(Hub(config(), SmallTask(), _loaded(), 0.0))
    for peer, role in ((b"s", "sampler"), (b"v", "verifier"), (b"l", "learner")):
        bench.say(peer, hello(role, step=0))
    bench.run(b"s", b"v", b"l")
    return bench.records


def _loaded():
    from rlsp_async.replay.records import JournalContent

    return JournalContent(incarnation=1)


def first(records: list, kind: type) -> int:
    return next(at for at, record in enumerate(records) if isinstance(record, kind))


def spoil_manifest(records: list, **changes) -> list:
    at = first(records, Manifest)
    return [*records[:at], msgspec.structs.replace(records[at], **changes)]


def spoil_group(records: list, **changes) -> list:
    """Changes the record of the first group that is charged, then goes on to the manifest."""
    at = first(records, Manifest)
    charged = next(i for i, r in enumerate(records) if isinstance(r, Put) and r.record.state == "training")
    put = msgspec.structs.replace(records[charged], record=msgspec.structs.replace(records[charged].record, **changes))
    return [*records[:charged], put, *records[charged + 1 : at + 1]]


BROKEN = {
    "would follow": lambda r: spoil_manifest(r, step=2),
    "names a group twice": lambda r: spoil_manifest(r, groups=[1, 1]),
    "does not know it": lambda r: spoil_manifest(r, groups=[1, 99]),
    "it is ready": lambda r: spoil_group(r, state="ready"),
    "charged for step 7": lambda r: spoil_group(r, step=7),
    "its lag is 5": lambda r: spoil_group(r, oldest=-5),
    "its lag is -3": lambda r: spoil_group(r, oldest=3),
    "2 uses of 1": lambda r: spoil_group(r, uses=2),
    "1 rollouts of 2": lambda r: spoil_group(r, num_rollouts=1),
    "1 true verdicts on 2": lambda r: spoil_group(r, num_verdicts=1),
    "no batch of it": lambda r: [r[first(r, Stepped)]],
    "report of step 2": lambda r: [
        *r[: first(r, Manifest) + 1],
        msgspec.structs.replace(
            r[first(r, Stepped)], report=msgspec.structs.replace(r[first(r, Stepped)].report, step=2)
        ),
    ],
}


@pytest.mark.parametrize("sentence", BROKEN)
def test_records_that_break_an_invariant_are_not_stored(tmp_path: Path, sentence: str):
    journal = Journal(tmp_path / "j.sqlite", config())
    with pytest.raises(InvariantError, match=sentence):
        journal.commit(BROKEN[sentence](recorded()))
    assert rows(journal.path, "SELECT count(*) FROM groups") == [(0,)]
    assert rows(journal.path, "SELECT count(*) FROM manifests") == [(0,)]
    journal.close()


def test_honest_records_are_stored(tmp_path: Path):
    journal = Journal(tmp_path / "j.sqlite", config())
    journal.commit(recorded())
    assert rows(journal.path, "SELECT max(step), count(*) FROM steps") == [(3, 3)]
    tokens = rows(journal.path, "SELECT value FROM cursors WHERE name = 'generated'")
    assert tokens == rows(journal.path, "SELECT sum(num_tokens) FROM groups") == [(36,)]
    journal.close()


def test_journal_of_another_schema_is_refused_in_one_sentence(tmp_path: Path):
    Journal(tmp_path / "j.sqlite", config()).close()
    db = sqlite3.connect(tmp_path / "j.sqlite")
    db.execute("UPDATE run SET value = '1', seal = NULL WHERE key = 'schema'")
    db.commit()
    db.close()
    with pytest.raises(ConfigError, match=r"another version of rlsp_async \(schema 1, this one has 3\)"):
        Journal(tmp_path / "j.sqlite", config())


@pytest.mark.parametrize(
    ("source", "provenance", "whole"),
    [("rollouts", "rollout", [2]), ("demonstrations", "demonstration", [1]), ("imported", "demonstration", [1, 2])],
)
def test_how_many_rollouts_are_a_whole_group(source, provenance, whole):
    """Of 0 to 3, with sampling.rollouts = 2."""
    stage = StageConfig(source=source)
    assert [num for num in range(4) if is_whole(stage, provenance, num, 2)] == whole


def test_an_imported_group_is_judged_whole_or_not_at_all():
    row = ("training", 1, "demonstration", -1, 1, 2)
    imported = StageConfig(source="imported")
    assert find_violation((*row, 2), 1, imported, 2) == find_violation((*row, 0), 1, imported, 2) == ""
    assert "1 true verdicts on 2" in find_violation((*row, 1), 1, imported, 2)
