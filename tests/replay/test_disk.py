"""A disk that runs full pauses the run, says so, and finally stops it; nothing new begins meanwhile."""

from __future__ import annotations

import pytest

from rlsp_async.config import EvaluationConfig, ReplayConfig, StageConfig
from rlsp_async.messages import Status, TrainJob, Work
from rlsp_async.replay.records import Event
from rlsp_async.replay.state import Disk
from tests.replay.line import Bench, config, hello, new_hub

MIB = 1 << 20


def test_pauses_below_the_reserve_and_goes_on_at_a_quarter_above_it():
    disk = Disk("runs/x", 100 * MIB, patience_s=60.0)
    free = [100, 99, 110, 124, 125, 101]
    assert [disk.measured(mib * MIB, 0, 0.0) for mib in free] == ["", "paused", "", "", "unpaused", ""]


def test_gives_up_after_its_patience_and_says_what_to_do():
    disk = Disk("runs/x", 100 * MIB, patience_s=60.0)
    assert disk.measured(12 * MIB, 0, 10.0) == "paused"
    assert disk.sentence() == (
        "paused: 12 MiB are free for runs/x, less than replay.disk_reserve_mb = 100; free some "
        "space: at 125 MiB the run goes on, after 60 s it stops"
    )
    assert disk.measured(11 * MIB, 0, 70.0) == ""
    assert disk.measured(11 * MIB, 0, 70.5) == "full"
    assert "11 MiB are free" in disk.sentence()
    assert "rlsp run --resume runs/x" in disk.sentence()


def test_figures_are_those_of_the_newest_measurement():
    disk = Disk("runs/x", MIB, patience_s=60.0)
    assert disk.figures() == {}
    disk.measured(3 * MIB, MIB // 2, 0.0)
    assert disk.figures() == {"disk_free_mb": 3.0, "journal_mb": 0.5}


def started(**changes) -> Bench:
    bench = Bench(new_hub(config(**changes)))
    for peer, role in ((b"s", "sampler"), (b"v", "verifier"), (b"l", "learner")):
        bench.say(peer, hello(role, step=0))
    return bench


def measure(bench: Bench, mib: int, now: float) -> None:
    bench.now = now
    bench.take(bench.hub.disk(mib * MIB, now, MIB), b"")


def test_what_is_alive_goes_on_and_nothing_new_begins():
    bench = started()
    issued = bench.hub.state.ledger.issued
    measure(bench, 10, 1.0)
    bench.run(b"s", b"v", b"l")
    state = bench.hub.state
    assert (state.ledger.issued, state.step) == (issued, 1)
    assert state.ledger.trained == 2
    assert not bench.got(b"s", Work)
    measure(bench, 1000, 2.0)
    bench.run(b"s", b"v", b"l")
    assert state.ending.kind == "finished"
    assert [r.kind for r in bench.records if isinstance(r, Event) and "paused" in r.kind] == ["paused", "unpaused"]


def test_evaluation_prompts_wait_too():
    bench = Bench(new_hub(config(evaluation=EvaluationConfig(prompts=5, rollouts=2, before=["rlsp"]))))
    measure(bench, 10, 1.0)
    bench.say(b"s", hello("sampler"))
    assert not bench.got(b"s", Work)
    measure(bench, 1000, 2.0)
    assert len(bench.got(b"s", Work)) == 2


def test_demonstrations_wait_too():
    bench = Bench(new_hub(config(stages={"sft": StageConfig(source="demonstrations", steps=1, groups_per_step=2)})))
    assert bench.hub.demonstrations_wanted() == 2
    measure(bench, 10, 1.0)
    assert bench.hub.demonstrations_wanted() == 0


def test_observers_read_why_and_metrics_rows_carry_the_figures():
    bench = started(stage={"target_lag": 1})
    bench.say(b"o", hello("observer"))
    measure(bench, 10, 1.0)
    bench.tick(3.0)
    assert "10 MiB are free" in bench.got(b"o", Status)[-1].message
    bench.until(lambda: bench.hub.state.step == 1, b"s", b"v", b"l")
    [row] = [line.row for line in bench.lines if line.file == "metrics"]
    assert (row["disk_free_mb"], row["journal_mb"]) == (10.0, 1.0)
    measure(bench, 1000, 4.0)
    bench.tick(5.0)
    assert bench.got(b"o", Status)[-1].message == ""


@pytest.mark.parametrize("stall_s", [20.0, 100.0])
def test_paused_too_long_drains_the_line_and_is_no_stall(stall_s):
    bench = started(replay=ReplayConfig(stall_s=stall_s, timeout_s=1e6, lease_s=1e6))
    measure(bench, 10, 1.0)
    bench.run(b"s", b"v", b"l")
    bench.tick(stall_s)
    bench.tick(stall_s + 1.2)  # now nothing has moved for longer than stall_s
    assert bench.hub.state.ending.kind == ""
    measure(bench, 9, stall_s + 1.5)
    bench.run(b"s", b"v", b"l")
    state = bench.hub.state
    assert (state.disk.is_given_up, state.ending.is_over, state.ending.kind) == (True, True, "draining")
    assert "9 MiB are free" in state.ending.message
    assert [r.kind for r in bench.records if isinstance(r, Event)][-1] == "stopped"
    assert not [m for m in bench.inbox[b"l"] if isinstance(m, Work) and isinstance(m.job, TrainJob)]


def test_a_reserve_of_zero_never_pauses():
    bench = started(replay=ReplayConfig(disk_reserve_mb=0))
    measure(bench, 0, 1.0)
    bench.run(b"s", b"v", b"l")
    assert bench.hub.state.ending.kind == "finished"
