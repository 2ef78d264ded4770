"""`rlsp audit RUN`: every check, one line each, and the rows that offend."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any, TextIO

import msgspec

from rlsp_async.audit.account import account_text, check_account, token_account
from rlsp_async.audit.batches import BatchChecks
from rlsp_async.audit.files import check_files
from rlsp_async.audit.finding import Finding
from rlsp_async.audit.groups import GroupChecks
from rlsp_async.audit.history import History
from rlsp_async.audit.spawned import check_spawned
from rlsp_async.audit.steps import check_steps
from rlsp_async.audit.successes import SuccessChecks

_MARKS = {"ok": "ok", "violated": "VIOLATED", "not applicable": "-"}


class Audit(msgspec.Struct, kw_only=True):
    """What `rlsp audit --json` prints."""

    run: str
    path: str
    ok: bool
    seconds: float
    tokens: dict[str, int]
    """The token account: generated, then where they are."""
    findings: list[Finding]


def audit(path: Path) -> Audit:
    """Checks one journal, or the journal of one run directory. Raises DataError when it is none."""
    began_s = time.monotonic()
    history = History(path)
    try:
        findings = [
            *GroupChecks(history).run(history),
            *BatchChecks(history).run(),
            *check_steps(history),
            *check_files(history),
            *check_account(history),
            *SuccessChecks(history).run(),
            check_spawned(history),
        ]
        tokens = token_account(history)
    finally:
        history.close()
    return Audit(
        run=history.cfg.name,
        path=str(history.path),
        ok=all(f.outcome != "violated" for f in findings),
        seconds=time.monotonic() - began_s,
        tokens=tokens,
        findings=sorted(findings, key=_order),
    )


def _order(finding: Finding) -> tuple[int, str]:
    number = finding.guarantee.removeprefix("G")
    return (int(number) if number.isdigit() else 99, finding.guarantee)


def show_audit(path: Path, *, as_json: bool, out: TextIO | None = None) -> int:
    """Prints the audit; the exit code is 0 when all guarantees hold, 1 when one is violated."""
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
    return f"{where}: {row['what']}"
