"""`rlsp report RUN`: the results as a table; a program gets the same facts with --json."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TextIO

import msgspec

from rlsp_async.cli.arguments import Commands


def add_parser(commands: Commands) -> None:
    """The arguments of `rlsp report`."""
    parser = commands.add_parser("report", help="the results of a run as a table, and RUN/report.html")
    parser.add_argument("run", metavar="RUN", help="directory of a run, e.g. runs/ops_cpu")
    parser.add_argument("--json", action="store_true", help="the whole report as JSON")
    parser.set_defaults(function=report_command)


def report_command(arguments: argparse.Namespace) -> int:
    """Prints the report and writes it into the run's directory. Raises UserError."""
    return show_report(Path(arguments.run), as_json=arguments.json)


def show_report(directory: Path, *, as_json: bool, out: TextIO | None = None) -> int:
    """Reads the run's files again, so that this also works while the run goes on. Raises DataError."""
    from rlsp_async.report.results import build_report
    from rlsp_async.report.text import print_report
    from rlsp_async.report.write import load_report, write_report

    out = out or sys.stdout
    old = load_report(directory) if (directory / "report.json").is_file() else None
    report = build_report(directory, finished=old is not None and old.finished)
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(report)).decode(), file=out)
        return 0
    write_report(directory, finished=report.finished)
    print_report(report, out)
    return 0
