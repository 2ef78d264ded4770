"""Logs: JSON lines in RUN/logs/WORKER.jsonl; errors also as a line of text on stderr.

Example line: {"role":"sampler","worker":"sampler-0","hub":1,"event":"welcome","level":"info","time":"2026-11-21T..Z"}
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import IO, Any

import orjson
import structlog
from structlog.typing import EventDict, WrappedLogger

from rlsp_async.contents import printable, printable_lines
from rlsp_async.errors import unwritable


class OpenLog(contextlib.AbstractContextManager[None]):
    """A log that is written to; at its end loggers write where they wrote before, so that none meets a closed file."""

    def __init__(self, file: IO[bytes], before: dict[str, Any]) -> None:
        self._file, self._before = file, before

    def __exit__(self, *_: object) -> None:
        """Gives the loggers back and closes the file."""
        structlog.contextvars.clear_contextvars()
        structlog.configure(**self._before)
        self._file.close()


def open_log(path: Path, **context: str) -> OpenLog:
    """Makes every structlog logger of this process write to `path` from now on, with `context` in each line.

    The caller ends it. Raises MachineError when the file cannot be written.
    """
    before = structlog.get_config()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "ab", buffering=0)  # noqa: SIM115  closed by the caller
    except OSError as e:
        raise unwritable(path, e) from None
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(**context)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            structlog.processors.format_exc_info,
            _print_errors,
            structlog.processors.JSONRenderer(serializer=_dumps),
        ],
        logger_factory=structlog.BytesLoggerFactory(file=file),
        cache_logger_on_first_use=False,
    )
    return OpenLog(file, before)


def _print_errors(_logger: WrappedLogger, level: str, event: EventDict) -> EventDict:
    """Prints an error, with its traceback if it has one, to stderr; passes the event on."""
    if level in ("error", "critical", "exception"):
        trace = f"\n{_trace(event['exception'])}" if "exception" in event else ""
        said = f"rlsp {printable(str(event.get('worker', '')))}: {printable(str(event['event']), longest=20_000)}"
        print(f"{said}{trace}", file=sys.stderr, flush=True)
    return event


def _trace(text: str) -> str:
    """A traceback for people. None of its lines passes for a sentence of a service ("rlsp ...: ...")."""
    lines = printable_lines(text).split("\n")
    return "\n".join(f"  {line}" if line.lstrip().startswith("rlsp") else line for line in lines)


def _dumps(event: EventDict, **_: Any) -> bytes:
    return orjson.dumps(event, default=str)
