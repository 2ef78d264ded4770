"""Nothing is acknowledged that is not on the disk: synced before it is said, and when the disk is full nothing is said.

The sync is watched from outside (strace); the full disk is a real one (a tmpfs of two megabytes) where the test may
mount, and a limit on the size of files everywhere.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rlsp_async.config import ReplayConfig, RunConfig, SamplingConfig, StageConfig
from rlsp_async.errors import MachineError
from rlsp_async.messages import Ack, Done, SampleJob, Work
from rlsp_async.replay import server as shell
from rlsp_async.replay.server import ReplayServer
from tests.replay.line import SmallTask, config, rollouts_of
from tests.replay.test_server import FakeDemonstrations, FakeRouter

ROOT = Path(__file__).parents[2]
NUM_TOKENS = 4000

COMMITS = """
import os, sys
from pathlib import Path
from rlsp_async.config import ReplayConfig
from rlsp_async.replay.records import GroupRecord, Put
from rlsp_async.replay.journal import Journal
from tests.replay.line import config
journal = Journal(Path(sys.argv[1]), config(replay=ReplayConfig(durability=sys.argv[2])))
os.write(1, b"ack 0\\n")
for group_id in range(1, 11):
    journal.commit([Put(record=GroupRecord(group_id=group_id, stage="rlsp"))])
    os.write(1, b"ack %d\\n" % group_id)
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize(("durability", "num_synced"), [("power", 10), ("process", 0)])
def test_log_is_synced_between_its_last_write_and_the_word_that_it_is_stored(tmp_path, durability, num_synced):
    trace = tmp_path / "trace"
    done = subprocess.run(
        [
            "strace",
            "-f",
            "-y",
            "-o",
            str(trace),
            "-e",
            "trace=write,pwrite64,fsync,fdatasync",
            sys.executable,
            "-c",
            COMMITS,
            str(tmp_path / "j.sqlite"),
            durability,
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": "."},
        text=True,
        capture_output=True,
        timeout=50,
    )
    if "PTRACE" in done.stderr or "ptrace" in done.stderr:
        pytest.skip(f"strace may not look: {done.stderr.strip()}")
    calls = [call for line in trace.read_text().splitlines() for call in [_call(line)] if call]
    after_first = "".join(calls[calls.index("a") + 1 :])
    commits = after_first.split("a")[:-1]  # w: the log is written, s: it is synced, a: it is said
    assert len(commits) == 10, after_first
    assert all("w" in commit for commit in commits), after_first
    assert sum(commit.endswith("s") for commit in commits) == num_synced, after_first


def _call(line: str) -> str:
    if re.search(r'\bwrite\(1<.*"ack ', line):
        return "a"
    if re.search(r"\bpwrite64\(\d+<[^>]*j\.sqlite-wal>", line):
        return "w"
    return "s" if re.search(r"\bf(data)?sync\(\d+<[^>]*j\.sqlite-wal>", line) else ""


class BigRouter(FakeRouter):
    """Rollouts of NUM_TOKENS tokens; remembers which groups and verdicts the hub has acknowledged."""

    def __init__(self) -> None:
        super().__init__()
        self.keys: dict[int, tuple[str, int]] = {}
        self.acked: set[tuple[str, int]] = set()

    def send(self, peer: bytes, message: Any) -> bool:
        if isinstance(message, Ack) and message.lease in self.keys:
            self.acked.add(self.keys[message.lease])
        if isinstance(message, Work) and isinstance(message.job, SampleJob):
            self.keys[message.lease] = ("group", message.job.group_id)
            group = rollouts_of(message.job, self.versions.get(peer, 0), NUM_TOKENS)
            self.queue.put_nowait((peer, Done(lease=message.lease, groups=[group])))
            return True
        return super().send(peer, message)


def big(directory: Path) -> RunConfig:
    """About 200 KB a step, 30 steps; the guard is off, so that the disk really runs full."""
    return config(
        runs_dir=str(directory),
        stages={"rlsp": StageConfig(steps=30, groups_per_step=2)},
        replay=ReplayConfig(disk_reserve_mb=0),
        sampling=SamplingConfig(rollouts=2, max_new_tokens=8),
    )


def new_server(cfg: RunConfig) -> ReplayServer:
    return ReplayServer(cfg, SmallTask(), FakeDemonstrations())  # type: ignore[arg-type]


async def run_until_full(cfg: RunConfig) -> set[int]:
    """Group ids that the hub acknowledged before its disk was full."""
    router = BigRouter()
    with pytest.raises(MachineError, match="nothing that is not in it was acknowledged|cannot be written") as raised:
        await new_server(cfg).run(lambda: router)
    assert "\n" not in str(raised.value)
    assert raised.value.exit_code == 2
    return {key for _, key in router.acked}


def stored(cfg: RunConfig) -> set[int]:
    db = sqlite3.connect(cfg.directory / "journal.sqlite")
    rows = db.execute("SELECT group_id FROM groups WHERE state != 'issued'").fetchall()
    db.close()
    return {row[0] for row in rows}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, two megabytes large."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = (
        shutil.which("mount")
        and subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(place)], capture_output=True
        ).returncode
        == 0
    )
    if not mounted:
        pytest.skip("this user may not mount a tmpfs")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def grow(place: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=64m", str(place)], check=True)


async def test_full_disk_stops_the_hub_and_with_more_room_it_finishes(small_disk):
    cfg = big(small_disk)
    acked = await run_until_full(cfg)
    assert len(acked) >= 4
    grow(small_disk)
    assert acked <= stored(cfg)
    again = new_server(cfg)
    await again.run(BigRouter)
    assert again.hub.state.ending.kind == "finished"
    assert again.hub.state.ledger.trained == 60


LIMITED = """
import asyncio, resource, sys
from pathlib import Path
from tests.replay import test_durability as t
resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, 1_500_000))
print("acked", *asyncio.run(t.run_until_full(t.big(Path(sys.argv[1])))))
"""


def run_limited(directory: Path) -> set[int]:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(directory)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": "."},
        timeout=50,
    )
    assert done.returncode == 0, done.stderr
    return {int(group_id) for group_id in done.stdout.splitlines()[-1].removeprefix("acked").split()}


async def test_file_that_may_not_grow_stops_the_hub_and_without_the_limit_it_finishes(tmp_path):
    cfg = big(tmp_path)
    acked = run_limited(tmp_path)
    assert len(acked) >= 4
    assert acked <= stored(cfg)
    again = new_server(cfg)
    await again.run(BigRouter)
    assert again.hub.state.ledger.trained == 60


async def test_hub_pauses_on_a_disk_without_room_and_goes_on(tmp_path, monkeypatch):
    room = {"bytes": 0}
    monkeypatch.setattr(shell, "DISK_S", 0.02)
    monkeypatch.setattr(shell, "measure", lambda directory: (room["bytes"], 0))
    hub, router = new_server(config(runs_dir=str(tmp_path))), FakeRouter()
    task = asyncio.create_task(hub.run(lambda: router))
    await asyncio.sleep(0.3)
    assert not [m for _, m in router.sent if isinstance(m, Work)]
    assert "0 MiB are free" in hub.hub.state.ending.message
    room["bytes"] = 1 << 40
    await task
    assert hub.hub.state.ending.kind == "finished"


async def test_hub_that_stays_without_room_ends_with_exit_code_2(tmp_path, monkeypatch):
    monkeypatch.setattr(shell, "DISK_S", 0.02)
    monkeypatch.setattr(shell, "measure", lambda directory: (1 << 20, 0))
    hub = new_server(config(runs_dir=str(tmp_path), replay=ReplayConfig(stall_s=0.2)))
    with pytest.raises(MachineError, match=r"1 MiB are free .* rlsp run --resume") as raised:
        await hub.run(FakeRouter)
    assert raised.value.exit_code == 2
