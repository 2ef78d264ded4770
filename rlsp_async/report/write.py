"""Writes the report of a run into its directory: report.json, and report.html beside it. Reads report.json again.

    write_report(run, finished=True)    # at the end, by `rlsp run`
    write_status(run, status)           # the supervisor's last look at the hub, which the report reads

Files appear whole (`rlsp_async.files`); they can be made again, so nothing is synced to the disk.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from rlsp_async.errors import DataError, unwritable
from rlsp_async.files import replace_file
from rlsp_async.messages import Status
from rlsp_async.report.html import page
from rlsp_async.report.results import Report, build_report


def write_report(directory: Path, *, finished: bool) -> Report:
    """Builds the report and writes report.json and report.html. Raises DataError or MachineError."""
    report = build_report(directory, finished=finished)
    _write(directory / "report.html", page(report, directory).encode())
    _write(directory / "report.json", msgspec.json.format(msgspec.json.encode(report)))
    return report


def load_report(directory: Path) -> Report | None:
    """Reads report.json; None when it is not there. Raises DataError when it is damaged."""
    file = directory / "report.json"
    try:
        return msgspec.json.decode(file.read_bytes(), type=Report)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as e:
        raise DataError(f"{file}: cannot be read: {e}; remove it, `rlsp report` makes it again") from None


def write_status(directory: Path, status: Status) -> None:
    """Writes status.json for the report. Raises MachineError when the disk refuses."""
    _write(directory / "status.json", msgspec.json.encode(status))


def _write(path: Path, content: bytes) -> None:
    try:
        replace_file(path, content, durable=False)
    except OSError as e:
        raise unwritable(path, e) from None
