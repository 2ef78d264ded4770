"""The verdict on a chaos run: the audit, recovery times, acknowledged work against the journal, pass or fail."""

from __future__ import annotations

import bisect
import contextlib
import math
from collections import Counter
from pathlib import Path

import msgspec

from rlsp_async.audit.acknowledged import find_lost as find_lost_of
from rlsp_async.audit.checks import Audit, audit
from rlsp_async.audit.history import History
from rlsp_async.chaos.faults import InjectedFault
from rlsp_async.chaos.harness import HarnessResult
from rlsp_async.config import RunConfig
from rlsp_async.errors import DataError
from rlsp_async.jsonl import JsonlWriter


class Recovery(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds after the faults of one kind on one target."""

    kind: str
    target: str
    num: int
    back_median_s: float
    back_90_s: float
    """Nine of ten were at most this."""
    back_most_s: float
    step_median_s: float
    step_90_s: float
    step_most_s: float


class ChaosResult(msgspec.Struct, kw_only=True):
    """The verdict on a chaos run; `rlsp chaos --json` prints it."""

    passed: bool
    reasons: list[str]
    """Why it failed; empty when it passed."""
    seed: int
    seconds: float
    steps: int
    num_struck: dict[str, int]
    """Faults that were carried out, by kind."""
    num_unreached: int
    """Faults of the schedule that came too late: the run was over."""
    starts: int
    messages: dict[str, int]
    acknowledged: int
    """Acknowledgements that were compared with the journal."""
    recoveries: list[Recovery]
    audit: Audit | None


def judge_run(cfg: RunConfig, result: HarnessResult, seed: int) -> ChaosResult:
    """Audits the run, measures recovery times, compares acknowledgements with the journal; writes RUN/chaos.jsonl."""
    reasons = [result.reason] if result.reason else []
    reasons += [f"{one.fault.kind} {one.fault.what}: {one.wrong}" for one in result.faults if one.wrong]
    report, acknowledged = None, 0
    try:
        report = audit(cfg.directory)
        if not report.ok:
            reasons.append("violated: " + ", ".join(f.guarantee for f in report.findings if f.outcome == "violated"))
        measure_recovery(cfg.directory, result.faults)
        acknowledged, missing = find_lost(cfg.directory)
        reasons += missing[:5]
    except DataError as e:
        reasons.append(str(e))
    if cfg.directory.is_dir():
        with JsonlWriter(cfg.directory / "chaos.jsonl") as writer:
            for injected in result.faults:
                writer.write(msgspec.to_builtins(injected))
    return ChaosResult(
        passed=not reasons,
        reasons=reasons,
        seed=seed,
        seconds=result.seconds,
        steps=sum(stage.steps for stage in cfg.stages.values()),
        num_struck=dict(Counter(one.fault.kind for one in result.faults if one.outcome == "done")),
        num_unreached=result.num_unreached,
        starts=result.starts,
        messages=result.messages,
        acknowledged=acknowledged,
        recoveries=summarise(result.faults),
        audit=report,
    )


def measure_recovery(run: Path, faults: list[InjectedFault]) -> None:
    """Fills in back_s and step_s of each fault from the journal's history. Raises DataError."""
    with contextlib.closing(History(run)) as history:
        created_s = float(history.run["created"])
        zero_s = float(history.run["clock"].split()[-1]) if "clock" in history.run else None
        steps = [at_s for (at_s,) in history.rows("SELECT at_s FROM steps ORDER BY at_s")]
        joined: dict[str, list[float]] = {}
        for at_s, kind, worker in history.rows(
            "SELECT at_s, kind, worker FROM events WHERE kind IN ('joined', 'hub_start')"
        ):
            joined.setdefault("replay-0" if kind == "hub_start" else worker, []).append(at_s)
    for injected in faults:
        if injected.outcome != "done":
            continue
        # The wall clock of the hub may be another one than ours.
        has_both = zero_s is not None and injected.monotonic_s >= 0
        at_s = injected.monotonic_s - zero_s if has_both and zero_s is not None else injected.wall_s - created_s
        injected.step_s = _after(steps, at_s)
        if injected.fault.kind in ("kill", "restart-all") or injected.fault.is_fatal:
            name = injected.fault.target if injected.fault.target.endswith("-0") else "replay-0"
            injected.back_s = _after(sorted(joined.get(name, [])), at_s)


def _after(times: list[float], at_s: float) -> float:
    """Seconds from `at_s` to the next of the sorted times; -1 when there is none."""
    where = bisect.bisect_right(times, at_s)
    return times[where] - at_s if where < len(times) else -1.0


def summarise(faults: list[InjectedFault]) -> list[Recovery]:
    """Recovery times by kind and target, the most frequent first."""
    by: dict[tuple[str, str], list[InjectedFault]] = {}
    for one in faults:
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
    """The smallest of the sorted values that `share` of them do not exceed; -1 without values."""
    return values[max(0, math.ceil(share * len(values)) - 1)] if values else -1.0


def find_lost(run: Path) -> tuple[int, list[str]]:
    """The acknowledgements in the workers' logs, and what the journal lacks of them (`audit.acknowledged.find_lost`).

    Raises: DataError when the journal cannot be read.
    """
    with contextlib.closing(History(run)) as history:
        num, missing = find_lost_of(history)
        if not num and history.rows("SELECT step FROM steps LIMIT 1"):
            missing.append("no acknowledgement was found in the logs, although steps were trained")
    return num, missing
