"""Runs that commit 5550626 wrote are read for ever: audited, reported, exported, gone on with, imported from.

In runs/ (README.md says how they came to be), by what `replay/heads.py` calls its records:

    many            finished; its learner and its sampler were killed, it was stopped and lost its published weights
    killed_in_rl    killed at once; batches decided and not reported, success replay and MoPPS under way, all of the
                    journal in its write-ahead log
    killed_in_hot   killed at once; groups issued, a spawned child among them, the bandit of temperatures under way
    offline         finished; imported rollouts (DPO, TOPR, PPO with its critic) and rows of a file, with data.json

    Put             states issued, training, trained, evaluated, dropped (stage_end); with bodies and verdicts (correct,
                    wrong, unparsable); demonstrations, rollouts, imported groups; children with parent and prompt
    Manifest        fifo, prioritised (propensities), stratified; reuse, carried groups, `replayed`; not reported yet
    Remember        kept and not kept, used and not, with tokens and without
    Stepped         of three starts of the learner, two of the hub
    Repeated        after kill -9 of the learner
    Published       of the run that had lost its weights; it leaves no row of its own
    Evaluated, Cursor, Learnt (prompts: mopps, curriculum; temperature: bstar)
    Event           hub_start, joined, gone, lease_lost, stopped, finished

Not there: states sampled and ready; drops as stale, truncated, no_signal, by errors; the other kinds of Event.
"""

import json
import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.compat import old

pytestmark = [pytest.mark.flow, pytest.mark.timeout(150)]

RUNS = ("many", "killed_in_rl", "killed_in_hot", "offline")
MOMENTARY = frozenset(
    {
        "t",
        "took_s",
        "seconds",
        "tokens_per_s",
        "ready_s",
        "sample_s",
        "verify_s",
        "disk_free_mb",
        "journal_mb",
        "account",
        "groups",
        "dropped",
        "uses_mean",
        "remembered",
    }
)
"""Figures of a step that are times, or say how far the hub was when it was reported."""
SAME_BITS = old.machine() == json.loads((old.HERE / "surface.json").read_text())["machine"]
"""On another machine sums of floats may end with another bit; then figures are compared to 1e-3."""


def numbers(text: str) -> list[str]:
    return re.findall(r"\d[\d,.]*", text)


def audited(place: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(old.rlsp(place, "audit", name, "--json"))
    return found


@pytest.mark.parametrize("name", RUNS)
def test_an_old_run_is_audited_reported_and_exported_as_it_was(tmp_path: Path, name: str) -> None:
    run, then = old.unpacked(tmp_path, name), old.expected(name)
    audit = audited(tmp_path, name)
    assert audit["tokens"] == then["audit"]["tokens"]
    for now, before in zip(audit["findings"], then["audit"]["findings"], strict=True):
        assert (now["guarantee"], now["outcome"]) == (before["guarantee"], before["outcome"])
        assert numbers(now["figures"]) == numbers(before["figures"])
    report = json.loads(old.rlsp(tmp_path, "report", name, "--json"))
    written = run / "report.json"  # of a finished run
    was = json.loads(written.read_text()) if written.exists() else then["report"]
    assert {**{key: report[key] for key in was}, "directory": ""} == {**was, "directory": ""}  # new keys are allowed
    exported = [
        line
        for what in (("--tokens",), ("--what", "demonstrations"))
        for line in old.rlsp(tmp_path, "export", name, *what).splitlines()
    ]
    assert {"lines": len(exported), "sha256": old.digest(exported)} == then["exported"]
    old.rlsp(tmp_path, "report", name)
    assert "</html>" in (run / "report.html").read_text()


@pytest.mark.parametrize(
    ("damage", "guarantee"),
    [
        ("UPDATE bodies SET body = CAST(body || x'00' AS BLOB) WHERE group_id = 500", "G1"),
        ("DELETE FROM groups WHERE group_id = 400", "G1"),
        ("DELETE FROM steps WHERE step = 70", "G4"),
        ("UPDATE repeats SET digest = 'sha256:0' WHERE step = 61", "G6"),
    ],
)
def test_the_audit_sees_damage_in_an_old_run(tmp_path: Path, damage: str, guarantee: str) -> None:
    run = old.unpacked(tmp_path, "many")
    with closing(sqlite3.connect(run / "journal.sqlite")) as db, db:
        assert db.execute(damage).rowcount == 1
    said = json.loads(old.rlsp(tmp_path, "audit", "many", "--json", ok=1))
    assert guarantee in {finding["guarantee"] for finding in said["findings"] if finding["outcome"] == "violated"}


def test_a_finished_run_is_shown_and_not_trained_again(tmp_path: Path) -> None:
    run = old.unpacked(tmp_path, "many")
    before = (run / "journal.sqlite").read_bytes()
    assert "finished already" in old.rlsp(tmp_path, "run", "--resume", "many")
    assert (run / "journal.sqlite").read_bytes() == before


@pytest.mark.parametrize("name", ["killed_in_rl", "killed_in_hot"])
def test_an_interrupted_run_goes_on_to_its_end(tmp_path: Path, name: str) -> None:
    run, then = old.unpacked(tmp_path, name), old.expected(name)
    manifests = old.rows(run, "SELECT step, manifest FROM manifests ORDER BY step")
    reported = old.rows(run, "SELECT step, report FROM steps ORDER BY step")
    old.rlsp(tmp_path, "run", "--resume", name, f"learner.weights_dir={tmp_path}/weights", *old.PATIENT)
    assert old.rows(run, "SELECT step, manifest FROM manifests ORDER BY step")[: len(manifests)] == manifests
    assert len(old.rows(run, "SELECT 1 FROM steps")) == 89 > len(reported)
    words = old.rlsp(tmp_path, "audit", name, "--json", ok=0 if SAME_BITS else int(found_other_bits(tmp_path, name)))
    findings = {one["guarantee"]: one["outcome"] for one in json.loads(words)["findings"]}
    assert {which for which, outcome in findings.items() if outcome == "violated"} <= (set() if SAME_BITS else {"G6"})
    report = json.loads(old.rlsp(tmp_path, "report", name, "--json"))
    assert report["finished"] and [stage["steps"] for stage in report["stages"]] == [60, 12, 16, 1]
    same_words_in_the_metrics(tmp_path, run, name)
    same_figures(old.steps(run), {int(step): row for step, row in then["resumed"]["rows"].items()})
    digests = dict(old.rows(run, "SELECT step, digest FROM steps"))
    for step, digest in then["resumed"]["digests"].items():
        assert not SAME_BITS or digests[int(step)] == digest


def found_other_bits(place: Path, name: str) -> bool:
    """Whether the audit says so of a run that went on on another machine."""
    return old.answers(place, [["audit", name]])[0][0] == 1


def same_words_in_the_metrics(place: Path, run: Path, name: str) -> None:
    """Every figure that a line of `many` has, one of its kind and stage has that was written now."""
    whole, before = old.unpacked(place / "whole", "many"), old.unpacked(place / "before", name)
    for file in ("metrics.jsonl", "evaluations.jsonl", "timeline.jsonl", "rollouts.jsonl"):
        new = old.lines(run / file)[len(old.lines(before / file)) :]
        now, kinds = words(new), {kind(row) for row in new}
        then = words([row for row in old.lines(whole / file) if kind(row) in kinds])
        assert now and not then - now, (file, then - now)
    before_keys, now_keys = (set(json.loads((directory / "status.json").read_text())) for directory in (whole, run))
    assert not before_keys - now_keys


def kind(row: dict[str, Any]) -> str:
    return f"{row.get('kind')} {row.get('stage')}"


def words(lines: list[dict[str, Any]]) -> set[tuple[str, str]]:
    """(kind and stage, key) of lines, without the keys of a certain lag or reference answer, and of what need not happen."""
    chance = re.compile(r"lag_\d+|_lag_|verification\.|^why$|prompt_propensity_")
    return {(kind(row), key) for row in lines for key in row if not chance.search(key)}


def same_figures(now: dict[int, dict[str, Any]], then: dict[int, dict[str, Any]]) -> None:
    """To the last digit on the machine that wrote them."""
    for step, row in then.items():
        want = {key: value for key, value in row.items() if key not in MOMENTARY}
        found = {key: now[step].get(key) for key in want}
        if not SAME_BITS:
            found = {key: want[key] if about(found[key], want[key]) else found[key] for key in want}
        assert {key: (found[key], want[key]) for key in want if found[key] != want[key]} == {}, step


def without_new_and_empty(now: Any, was: Any) -> Any:
    """Fields that were added since then say nothing here: only they, and only empty, are left out."""
    if isinstance(now, dict) and isinstance(was, dict):
        return {key: without_new_and_empty(value, was.get(key)) for key, value in now.items() if value or key in was}
    if isinstance(now, list) and isinstance(was, list) and len(now) == len(was):
        return [without_new_and_empty(one, other) for one, other in zip(now, was, strict=True)]
    return now


def about(found: Any, want: Any) -> bool:
    numbers = isinstance(found, int | float) and isinstance(want, int | float)
    return bool(found == (pytest.approx(want, rel=1e-3, abs=1e-5) if numbers else want))


def test_rollouts_of_an_old_run_are_imported_and_trained_to_the_same_weights(tmp_path: Path) -> None:
    """What `offline` was made by, once more: export from `many`, import, run."""
    then, many = old.unpacked(tmp_path / "then", "offline"), old.unpacked(tmp_path, "many")
    for options in (
        ["--tokens", "--stage", "rl", "--out", "rollouts.jsonl"],
        ["--what", "demonstrations", "--out", "right.jsonl"],
    ):
        old.rlsp(tmp_path, "export", many.name, *options)
    lines = sorted(set((tmp_path / "right.jsonl").read_text().splitlines()))
    (tmp_path / "train.jsonl").write_text("\n".join(lines[:40]) + "\n")
    (tmp_path / "test.jsonl").write_text("\n".join(lines[38:50]) + "\n")
    settings = [
        str(old.HERE / "settings" / "offline.toml"),
        "runs_dir=now",
        f"model.path={then / 'model'}",
        f"learner.weights_dir={tmp_path}/weights",
        *old.PATIENT,
    ]
    (tmp_path / "now").mkdir()
    old.rlsp(tmp_path, "import", "rollouts.jsonl", "--group-by", "group", "--run", *settings)
    old.rlsp(tmp_path, "run", *settings)
    run = tmp_path / "now" / "offline"
    for file in ("imported.jsonl", "data.json"):
        for now, was in zip(old.lines(run / file), old.lines(then / file), strict=True):
            assert without_new_and_empty(now, was) == was, file
    same_figures(old.steps(run), old.steps(then))
    query = "SELECT step, digest FROM steps ORDER BY step"
    assert not SAME_BITS or old.rows(run, query) == old.rows(then, query)
    old.rlsp(tmp_path, "audit", str(run))
    shutil.rmtree(run)
