"""`rlsp audit RUN`: every check, one line each, and the rows that violate it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, TextIO

import msgspec

from rlsp_async.cli.arguments import Commands
from rlsp_async.contents import printable

_MARKS = {"ok": "ok", "violated": "VIOLATED", "not applicable": "-"}


def add_parser(commands: Commands) -> None:
    """The arguments of `rlsp audit`."""
    parser = commands.add_parser("audit", help="check every guarantee of a run from its journal; exit code 1: broken")
    parser.add_argument("run", metavar="RUN", help="directory of a run, or a journal.sqlite; the run may be going on")
    parser.add_argument("--json", action="store_true", help="every finding as JSON")
    parser.set_defaults(function=audit_command)


def audit_command(arguments: argparse.Namespace) -> int:
    """Prints the audit; exit code 0 when all guarantees hold, 1 when one is violated. Raises DataError."""
    return show_audit(Path(arguments.run), as_json=arguments.json)


def show_audit(path: Path, *, as_json: bool, out: TextIO | None = None) -> int:
    """Prints the audit; the exit code is 0 when all guarantees hold, 1 when one is violated."""
    from rlsp_async.audit.batches import account_text
    from rlsp_async.audit.checks import audit

    out, result = out or sys.stdout, audit(path)
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(result)).decode(), file=out)
        return 0 if result.ok else 1
    print(f"audit of run {result.run} ({result.path})\n", file=out)
    for finding in result.findings:
        print(f"{_MARKS[finding.outcome]:<9} {finding.guarantee:<6} {finding.title:<53} {finding.figures}", file=out)
        for row in finding.rows:
            print(f"{'':<16} {_row_text(row)}", file=out)
        if finding.num_offending > len(finding.rows):
            print(f"{'':<16} and {finding.num_offending - len(finding.rows):,} more", file=out)
    violated = [finding.guarantee for finding in result.findings if finding.outcome == "violated"]
    print(f"\ntokens: {account_text(result.tokens)}", file=out)
    if violated:
        print(
            f"{len(violated)} of {len(result.findings)} guarantees are VIOLATED: {', '.join(violated)}. The journal "
            "or a file beside it was changed or damaged, or this is a bug: keep a copy and report it",
            file=out,
        )
    else:
        idle = sum(finding.outcome == "not applicable" for finding in result.findings)
        print(f"{len(result.findings) - idle} hold, {idle} not applicable; {result.seconds:.1f} s", file=out)
    return 0 if result.ok else 1


def _row_text(row: dict[str, Any]) -> str:
    where = " ".join(f"{name} {value}" for name, value in row.items() if name != "what")
    return printable(f"{where}: {row['what']}", longest=4000)
