"""What workers were told is stored, against what is stored (G1; Jepsen's total-queue check).

A worker logs each acknowledgement when RLSP_LOG_ACKS is set (`rlsp chaos` sets it); without such logs there is nothing
to compare, and the hub's own count in the journal is all there is (`groups.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from rlsp_async.audit.history import History

MISSING_NAMED = 100


def find_lost(history: History) -> tuple[int, list[str]]:
    """Looks up in the journal everything that a worker was told is stored, by the logs beside the journal.

    Returns: the number of acknowledgements in the workers' logs, and one sentence for each that the journal lacks, of
        the first MISSING_NAMED.
    """
    states = dict(history.rows("SELECT group_id, state FROM groups"))
    steps = {step for (step,) in history.rows("SELECT step FROM steps")}
    num = 0
    missing: list[str] = []
    for log in sorted((history.path.parent / "logs").glob("*.jsonl")):
        for row in _acknowledged(log):
            num += 1
            role, key = row.get("role"), row.get("key")
            stored = {
                "sampler": states.get(key, "issued") != "issued",
                "verifier": states.get(key, "issued") not in ("issued", "sampled"),
                "learner": key in steps,
            }.get(str(role), True)
            if not stored and len(missing) < MISSING_NAMED:
                missing.append(f"{row.get('worker')} was told that {key} is stored, and it is not")
    return num, missing


def _acknowledged(log: Path) -> Iterator[dict[str, Any]]:
    """The acknowledgements in one worker's log.

    A killed process leaves half a line, which the first line of its next start continues. Such a line is skipped.
    """
    with log.open("rb") as lines:
        for line in lines:
            if b'"acknowledged"' not in line:
                continue
            try:
                row = msgspec.json.decode(line, type=dict[str, Any])
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue
            if row.get("event") == "acknowledged":
                yield row
