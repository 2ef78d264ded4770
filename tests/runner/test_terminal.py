"""The live view of a literal Status, and the plain line."""

import io

import msgspec
from rich.console import Console

from rlsp_async.config import RunConfig, convert
from rlsp_async.messages import Status, WorkerStatus
from rlsp_async.runner.terminal import LiveView, figures, panel, plain_line

WORKERS = [
    WorkerStatus(
        worker="sampler-0",
        role="sampler",
        state="working",
        leases=12,
        credit=16,
        idle_share=0.04,
        version=1003,
        silent_s=0.2,
    ),
    WorkerStatus(
        worker="learner-0",
        role="learner",
        state="waiting_work",
        leases=0,
        credit=1,
        idle_share=0.31,
        version=-1,
        silent_s=12.0,
    ),
    WorkerStatus(
        worker="observer-1",
        role="observer",
        state="working",
        leases=0,
        credit=0,
        idle_share=1.0,
        version=-1,
        silent_s=0.0,
    ),
]
STATUS = Status(
    run="ops",
    stage="rlsp",
    phase="running",
    stage_step=3,
    stage_steps=16,
    step=1003,
    version=1003,
    seconds=75.0,
    counts={"queue_train": 1, "ready": 9, "issued": 40, "trained": 24},
    tokens={"generated": 812345, "trained": 402000},
    metrics={
        "pass_at_1": 0.312,
        "reward": 0.41,
        "part_correct": 0.5,
        "parts.search_steps": 3.25,
        "lag_mean": 0.9,
        "lag_max": 1.0,
        "tokens_per_s": 9100.0,
        "loss": 0.0123,
    },
    workers=WORKERS,
    seconds_left=130.0,
    message="sampler-1 left",
)


def drawn(status: Status, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(panel(status))
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def test_the_panel_shows_everything_at_a_glance() -> None:
    text = drawn(STATUS)
    for piece in (
        "rlsp ops",
        "running",
        "version 1003",
        "1 min 15 s",
        "about 2 min 10 s left",
        "step 3/16",
        "pass@1 31 %",
        "reward 0.41",
        "correct 0.5",
        "search steps 3.25",
        "lag 0.90 (max 1)",
        "tokens/s 9.1 k",
        "generated 812 k",
        "sampler-0",
        "12/16",
        "4 %",
        "silent 12 s",
        "sampler-1 left",
    ):
        assert piece in text
    assert "observer" not in text


def test_states_stand_in_the_order_of_the_line() -> None:
    text = drawn(STATUS)
    assert text.index("issued 40") < text.index("ready 9") < text.index("trained 24") < text.index("queue_train 1")


def test_an_empty_status_is_drawn_too() -> None:
    bare = Status(
        run="x",
        stage="",
        phase="running",
        stage_step=0,
        stage_steps=0,
        step=0,
        version=0,
        seconds=0.0,
        counts={},
        tokens={},
        metrics={},
        workers=[],
    )
    assert "starting" in drawn(bare, width=60)
    assert figures(bare) == []
    assert plain_line(bare) == "[    0 s] starting running step 0/0 v0"


def test_the_plain_line() -> None:
    assert plain_line(STATUS) == (
        "[   75 s] rlsp running step 3/16 v1003 | pass@1 31 % reward 0.41 correct 0.5 search steps 3.25 "
        "lag 0.90 (max 1) loss 0.0123 tokens/s 9.1 k | idle sampler-0 4 %, learner-0 31 % | 2 min 10 s left | "
        "sampler-1 left"
    )


def test_in_a_log_a_new_phase_is_said_at_once_and_the_same_one_is_not_repeated() -> None:
    out = io.StringIO()
    cfg = convert({"name": "x", "stages": {"rlsp": {}}}, RunConfig, "x")
    view = LiveView(cfg, out)
    view.update(STATUS)
    view.update(STATUS)
    view.say("sampler-0 [died]")
    view.close()
    assert [line[:30] for line in out.getvalue().splitlines()] == [
        "[   75 s] rlsp running step 3/",
        "rlsp: sampler-0 [died]",
    ]


def test_an_evaluation_is_counted_in_prompts() -> None:
    status = msgspec.structs.replace(STATUS, phase="evaluating", evaluated=12, to_evaluate=256)
    assert "evaluating 12/256" in drawn(status)
    assert "step 3/16" not in drawn(status)
    assert plain_line(status).startswith("[   75 s] rlsp evaluating 12/256 step 3/16 v1003 |")
