"""What a chaos run shows: recovery times from the journal, acknowledged work against the journal, pass or fail."""

from __future__ import annotations

import bisect
import math
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import orjson

from rlsp_async.chaos.faults import Fault


class Struck(msgspec.Struct, kw_only=True):
    """A fault that was carried out, or could not be."""

    fault: Fault
    wall_s: float
    """Seconds since 1970."""
    outcome: str = "done"
    """done | skipped: why."""
    back_s: float = -1.0
    """kill: until the service was back at work (joined, hub started); -1: the journal does not say."""
    step_s: float = -1.0
    """Until the next step was trained; -1: there was none."""


class Recovery(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds after the faults of one kind on one target."""

    kind: str
    target: str
    num: int
    back_median_s: float
    back_90_s: float
    """Nine of ten were faster."""
    back_most_s: float
    step_median_s: float
    step_90_s: float
    step_most_s: float


def measure(journal: Path, struck: list[Struck]) -> None:
    """Fills in back_s and step_s from the journal's history."""
    db = sqlite3.connect(f"file:{journal}?mode=ro", uri=True)
    created = float(db.execute("SELECT value FROM run WHERE key = 'created'").fetchone()[0])
    steps = [row[0] for row in db.execute("SELECT at_s FROM steps ORDER BY at_s")]
    joined: dict[str, list[float]] = {}
    for at_s, kind, worker in db.execute("SELECT at_s, kind, worker FROM events WHERE kind IN ('joined', 'hub_start')"):
        joined.setdefault("replay-0" if kind == "hub_start" else worker, []).append(at_s)
    db.close()
    for one in struck:
        if one.outcome != "done":
            continue
        at_s = one.wall_s - created
        one.step_s = _after(steps, at_s)
        if one.fault.kind in ("kill", "restart-all"):
            name = one.fault.target if one.fault.target.endswith("-0") else "replay-0"
            one.back_s = _after(sorted(joined.get(name, [])), at_s)


def _after(times: list[float], at_s: float) -> float:
    where = bisect.bisect_right(times, at_s)
    return times[where] - at_s if where < len(times) else -1.0


def summary(struck: list[Struck]) -> list[Recovery]:
    """By kind and target, the most frequent first."""
    by: dict[tuple[str, str], list[Struck]] = {}
    for one in struck:
        if one.outcome == "done":
            by.setdefault((one.fault.kind, one.fault.target), []).append(one)
    rows = []
    for (kind, target), ones in sorted(by.items(), key=lambda item: -len(item[1])):
        back, step = (sorted(t for t in (getattr(o, name) for o in ones) if t >= 0) for name in ("back_s", "step_s"))
        rows.append(
            Recovery(
                kind=kind,
                target=target or "everything",
                num=len(ones),
                back_median_s=quantile(back, 0.5),
                back_90_s=quantile(back, 0.9),
                back_most_s=quantile(back, 1.0),
                step_median_s=quantile(step, 0.5),
                step_90_s=quantile(step, 0.9),
                step_most_s=quantile(step, 1.0),
            )
        )
    return rows


def quantile(values: list[float], share: float) -> float:
    """Smallest of the sorted values that is not exceeded by `share` of them; -1 for none."""
    return values[max(0, math.ceil(share * len(values)) - 1)] if values else -1.0


def lost_acknowledged(run: Path) -> tuple[int, list[str]]:
    """Everything that a worker was told is stored, against the journal (Jepsen's total-queue: what goes in must come
    out). Returns how many acknowledgements were looked at, and what is missing."""
    db = sqlite3.connect(f"file:{run / 'journal.sqlite'}?mode=ro", uri=True)
    states = dict(db.execute("SELECT group_id, state FROM groups"))
    steps = {row[0] for row in db.execute("SELECT step FROM steps")}
    db.close()
    num, missing = 0, []
    for log in sorted((run / "logs").glob("*.jsonl")):
        for row in _acknowledged(log):
            num += 1
            role, key = row.get("role"), row.get("key")
            stored = {
                "sampler": states.get(key, "issued") != "issued",
                "verifier": states.get(key, "issued") not in ("issued", "sampled"),
                "learner": key in steps,
            }.get(str(role), True)
            if not stored:
                missing.append(f"{row.get('worker')} was told that {key} is stored, and it is not")
    if steps and not num:
        missing.append("no acknowledgement was found in the logs, although steps were trained")
    return num, missing


def _acknowledged(log: Path) -> Iterator[dict[str, Any]]:
    """The rows of one worker's log that say so. A killed process leaves half a line, which its next start goes on with:
    such a line was not finished, so nothing is known of it."""
    for line in log.read_bytes().splitlines():
        if b'"acknowledged"' not in line:
            continue
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue
        if row.get("event") == "acknowledged":
            yield row
