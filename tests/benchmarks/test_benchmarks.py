"""The benchmarks run and measure what they say, at their smallest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


def test_hub_smoke_measures_every_leg(tmp_path):
    command = [
        sys.executable,
        str(ROOT / "benchmarks" / "hub.py"),
        "--smoke",
        "--json",
        str(tmp_path / "hub.json"),
        "--out",
        str(tmp_path / "hub.svg"),
        "--dir",
        str(tmp_path),
    ]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=50,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert "10    5000  1 power   whole" in done.stdout, done.stdout + done.stderr
    rows = json.loads((tmp_path / "hub.json").read_text())["rows"]
    assert [row["workers"] for row in rows] == [10, 200]
    for row in rows:
        assert row["figures"]["groups_per_s"][0] > 10
        assert row["figures"]["ack_p99_ms"][0] > row["figures"]["ack_p50_ms"][0] > 0
    assert (tmp_path / "hub.svg").read_text().startswith("<svg")
    assert list(tmp_path.glob("rlsp-bench-*")) == []


def test_a_rollout_has_about_the_bytes_that_were_asked_for():
    from stubs import frame_bytes

    for size in (1_000, 5_000, 100_000):
        assert 0.9 * size < len(frame_bytes(1, size)) < 1.1 * size + 300  # names and prompt of the group
        assert 7.2 * size < len(frame_bytes(8, size)) < 8.8 * size


def status(**changes):
    from rlsp_async.messages import Status, WorkerStatus

    state = changes.pop("state", "waiting_credit")
    counts = {"trained": 9, "alive": 1024, **changes}
    worker = WorkerStatus(
        worker="sampler-0", role="sampler", state=state, leases=0, credit=1, idle_share=1.0, version=0, silent_s=0.0
    )
    return Status(
        run="bench",
        stage="bench",
        phase="running",
        stage_step=1,
        stage_steps=1,
        step=1,
        version=0,
        seconds=1.0,
        counts=counts,
        tokens={},
        metrics={},
        workers=[worker],
    )


@pytest.mark.parametrize(
    ("memory", "seen", "wrong"),
    [
        ([80.0] * 10, status(), []),
        ([80.0 + 4 * i for i in range(10)], status(), ["the hub grows by 240.00 MB a minute"]),
        ([80.0] * 10, status(queue_verify=1025), ["a queue is longer"]),
        ([80.0] * 10, status(state="waiting_work"), ["not as waiting for credit"]),
    ],
)
def test_memory_names_what_grows(memory, seen, wrong):
    from memory import SCENARIOS, _row

    found = _row(SCENARIOS[0], {"hub": memory}, [seen])["wrong"]
    assert len(found) == len(wrong)
    assert all(part in text for part, text in zip(wrong, found, strict=True))


def test_parts_names_what_each_part_of_the_hub_costs():
    command = [sys.executable, str(ROOT / "benchmarks" / "parts.py"), "--repeats", "1", "--groups", "64"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=50,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    rows = [line for line in done.stdout.splitlines() if line.startswith("G=")]
    assert [row.split()[0] for row in rows] == ["G=1", "G=8"], done.stdout + done.stderr
    for row in rows:
        words = row.partition(": ")[2].split()
        cost = {name: float(value) for name, value in zip(words[::3], words[1::3], strict=True)}
        assert list(cost) == ["decode", "hub", "commit", "encode", "lines", "sum"]
        assert abs(sum(cost.values()) - 2 * cost["sum"]) < 6
        assert min(cost.values()) > 0
