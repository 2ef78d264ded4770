"""`audit(run)`: every check of a run in one `Audit`. `rlsp audit` prints it."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from rlsp_async.audit.batches import BatchChecks, check_account, token_account
from rlsp_async.audit.derived import SuccessChecks, check_spawned
from rlsp_async.audit.groups import GroupChecks
from rlsp_async.audit.history import Finding, History
from rlsp_async.audit.steps import check_files, check_steps


class Audit(msgspec.Struct, kw_only=True):
    """What `rlsp audit --json` prints."""

    run: str
    path: str
    ok: bool
    seconds: float
    tokens: dict[str, int]
    """The token account (`batches.token_account`)."""
    findings: list[Finding]


def audit(path: Path) -> Audit:
    """Checks a journal, or the journal in the directory of a run. Raises DataError when it is no journal."""
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
