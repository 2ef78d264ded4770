"""What a peer or a model wrote cannot command a terminal, a log or the last words of a run."""

from __future__ import annotations

import io
from pathlib import Path

import msgspec
import pytest
import structlog
from rich.console import Console

from rlsp_async.cli.audit import _row_text
from rlsp_async.contents import is_worker_name, printable, printable_lines
from rlsp_async.logs import open_log
from rlsp_async.messages import Status, WorkerStatus
from rlsp_async.report.text import _table
from rlsp_async.runner.supervise import last_words
from rlsp_async.runner.terminal import panel, plain_line
from rlsp_async.wire.contract import STATUS

HOSTILE = [
    "\x1b[2J\x1b[H",
    "\x1b]0;title\x07",
    "\x1b]8;;http://x\x1b\\link",
    "\x9b31m",
    "\u202egnp.exe",
    "\u2066x\u2069",
    "a\r\nrlsp learner: forged",
    "a\x85rlsp learner: forged",
    "a\u2028rlsp learner: forged",
    "a\x0brlsp b: forged",
    "\x00\x08\x7f",
    "[/y]",
    "[bold red]x",
    "x[/y]",
    "\u200bzero",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_that_a_terminal_obeys_is_left(text: str):
    assert printable(f"start {text} end").isprintable()
    assert printable_lines(f"one\n{text}").count("\n") == 1 + text.count("\n")
    assert not is_worker_name(text)


def hostile_status(text: str) -> Status:
    worker = WorkerStatus(
        worker=text, role="sampler", state=text, leases=1, credit=2, idle_share=0.5, version=1, silent_s=0.0
    )
    return msgspec.structs.replace(
        STATUS,
        run=text,
        stage=text,
        phase=text,
        message=text,
        counts={text: 1},
        tokens={text: 1},
        metrics={f"parts.{text}": 1.0, "reward": 0.5},
        workers=[worker],
    )


@pytest.mark.parametrize("text", HOSTILE)
def test_panel_and_line_show_every_field_and_obey_none(text: str):
    line = plain_line(hostile_status(text))
    assert line.isprintable()
    out = io.StringIO()
    Console(file=out, force_terminal=False, width=200).print(panel(hostile_status(text)))
    assert all(shown.isprintable() for shown in out.getvalue().split("\n"))
    table = io.StringIO()
    _table(["name", text], [[text, "1"]], table)
    assert all(shown.isprintable() for shown in table.getvalue().split("\n"))
    assert table.getvalue().count("\n") == 4
    assert _row_text({"worker": text, "what": text}).isprintable()


@pytest.mark.parametrize("text", HOSTILE)
def test_last_words_are_those_of_the_service_and_one_line(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
):
    before = structlog.get_config()
    with open_log(tmp_path / "w.jsonl", worker="verifier-0"):
        structlog.get_logger().error(f"a group failed: {text} \nrlsp learner: forged")
        try:
            raise RuntimeError(f"{text}\nrlsp learner: forged")
        except RuntimeError as e:
            structlog.get_logger().error("bug", exc_info=e)
    assert structlog.get_config() == before  # nobody writes to the closed file afterwards
    out = tmp_path / "w.out"
    out.write_text(capsys.readouterr().err)
    said = last_words(out)
    assert said == "bug"
    assert not [line for line in out.read_text().split("\n") if line.startswith("rlsp learner")]
    out.write_bytes(f"rlsp verifier-0: failed {text}".encode())
    assert last_words(out).isprintable()
