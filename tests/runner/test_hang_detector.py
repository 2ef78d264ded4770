"""Which services hang, and which ones have not begun yet."""

from rlsp_async.messages import Status, WorkerStatus
from rlsp_async.runner.hang_detector import HangDetector


def status(*workers: str, step: int = 0) -> Status:
    known = [
        WorkerStatus(
            worker=name, role="sampler", state="working", leases=0, credit=1, idle_share=0.0, version=0, silent_s=0.0
        )
        for name in workers
    ]
    return Status(
        run="r",
        stage="a",
        phase="running",
        stage_step=0,
        stage_steps=1,
        step=step,
        version=0,
        seconds=0.0,
        counts={},
        tokens={},
        metrics={},
        workers=known,
    )


def detector(*names: str) -> HangDetector:
    new = HangDetector("replay-0", bound_s=20.0)
    for name in ("replay-0", *names):
        new.started(name)
    return new


def look(watcher: HangDetector, begin: int, end: int, *workers: str) -> list[tuple[str, float]]:
    """Once a second: the hub names these workers; the last answer of `hanging`."""
    found = []
    for now in range(begin, end):
        watcher.seen(status(*workers), now)
        found = watcher.hanging(now)
    return found


def test_who_was_heard_and_is_silent_is_frozen():
    watcher = detector("sampler-0", "learner-0")
    assert look(watcher, 0, 10, "sampler-0", "learner-0") == []
    assert look(watcher, 10, 30, "learner-0") == []
    assert look(watcher, 30, 31, "learner-0") == [("sampler-0", 21)]


def test_who_was_never_heard_is_still_starting():
    watcher = detector("sampler-0")
    assert look(watcher, 0, 900) == []


def test_a_new_start_is_not_blamed_for_the_old_one():
    watcher = detector("sampler-0")
    look(watcher, 0, 10, "sampler-0")
    watcher.ended("sampler-0")
    watcher.started("sampler-0")
    assert look(watcher, 10, 200) == []


def test_a_silent_hub_is_frozen_and_nobody_else_is_blamed():
    watcher = detector("sampler-0")
    look(watcher, 0, 10, "sampler-0")
    found = [watcher.hanging(now) for now in range(10, 31)]
    assert found[:20] == [[]] * 20
    assert found[20] == [("replay-0", 21)]


def test_a_watcher_that_was_asleep_forgives_everybody():
    watcher = detector("sampler-0")
    look(watcher, 0, 10, "sampler-0")
    assert watcher.hanging(500) == []
    assert watcher.hanging(510) == []


def test_a_life_in_which_a_step_was_trained_is_work():
    watcher = detector("sampler-0", "sampler-1")
    watcher.seen(status("sampler-0", "sampler-1", step=3), 0)
    watcher.seen(status("sampler-0", step=4), 1)
    assert watcher.ended("sampler-0")
    assert not watcher.ended("sampler-1")
    assert watcher.ended("replay-0")
