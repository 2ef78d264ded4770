"""Log lines: JSON into RUN/logs/WORKER.jsonl, and a line for people on stderr for errors only.

Example line: {"role":"sampler","worker":"sampler-0","hub":1,"event":"welcome","level":"info","time":"2026-11-21T..Z"}
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import IO, Any

import orjson
import structlog
from structlog.typing import EventDict, WrappedLogger

from rlsp_async.errors import unwritable


def open_log(path: Path, **context: str) -> IO[bytes]:
    """From here on every structlog logger of this process writes to `path`, with `context` in each line.

    The caller closes the file. Raises MachineError when it cannot be written.
    """
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
            _tell_people,
            structlog.processors.JSONRenderer(serializer=_dumps),
        ],
        logger_factory=structlog.BytesLoggerFactory(file=file),
        cache_logger_on_first_use=False,
    )
    return file


def _tell_people(_logger: WrappedLogger, level: str, event: EventDict) -> EventDict:
    if level in ("error", "critical", "exception"):
        trace = f"\n{event['exception']}" if "exception" in event else ""
        print(f"rlsp {event.get('worker', '')}: {event['event']}{trace}", file=sys.stderr, flush=True)
    return event


def _dumps(event: EventDict, **_: Any) -> bytes:
    return orjson.dumps(event, default=str)
