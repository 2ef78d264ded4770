"""The report of a run, made from its files alone: RUN/report.json, and report.html beside it.

    report = build_report(run)          # at any time, also while the run goes on
    write_report(run, finished=True)    # at the end, by `rlsp run`

Reads config.toml, metrics.jsonl, evaluations.jsonl, timeline.jsonl, rollouts.jsonl and status.json (the supervisor's
last look at the hub: the token account). Times are seconds since the run began.
"""

from __future__ import annotations

import hashlib
import os
import tomllib
from collections import Counter
from pathlib import Path

import msgspec

from rlsp_async import config
from rlsp_async.config import RunConfig
from rlsp_async.errors import DataError, unwritable
from rlsp_async.jsonl import read_jsonl
from rlsp_async.messages import Status
from rlsp_async.report.rows import Evaluation, Row, evaluation_row, rollout_row, step_row
from rlsp_async.report.timeline import Span, idle_shares, spans_of

DIGEST_LIMIT_BYTES = 8 << 30
EXAMPLES = 4


class StageSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One stage. Example: name="rlsp", steps=16 of 16, seconds=71.2, rollouts=4096, first and last reward."""

    name: str
    steps: int
    planned_steps: int
    seconds: float
    rollouts: int
    tokens: int
    """Response tokens that were trained on."""
    first_version: int
    last_version: int
    lag_mean: float | None = None
    lag_max: float | None = None
    reward_first: float | None = None
    """Mean over the first tenth of the steps; None where there is no reward."""
    reward_last: float | None = None
    verification_share: float | None = None
    """Share of the groups that were spawned to verify a rollout; None in a stage that spawns none, as below."""
    verification_first: float | None = None
    """Balanced accuracy of the verifications, mean over the first tenth of the steps that have any."""
    verification_last: float | None = None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a run did. Absent figures are None or empty."""

    run: str
    finished: bool
    directory: str
    seconds: float
    seed: int
    stages: list[StageSummary]
    evaluations: list[Evaluation]
    tokens: dict[str, int] = {}
    """The token account: generated == the sum of the others."""
    groups: dict[str, int] = {}
    """Groups by state at the end."""
    idle: dict[str, dict[str, float]] = {}
    """Idle share of each worker, by stage."""
    lags: dict[str, int] = {}
    """Trained rollouts by lag (as text: JSON keys)."""
    versions: int = 0
    """Newest version."""
    digest: str = ""
    """SHA-256 over the safetensors of final/."""
    message: str = ""
    examples: list[Row] = []
    """A few rollouts from before and after."""


# --- reading -------------------------------------------------------------------------------------------------------


def build_report(directory: Path, *, finished: bool = False) -> Report:
    """Reads the run's files. Raises DataError when there is no run here or a file is damaged."""
    cfg = read_config(directory)
    spans = spans_of(read_jsonl(directory / "timeline.jsonl"))
    rows = read_steps(directory, spans)
    evaluations = read_evaluations(directory)
    status = read_status(directory)
    account = rows[-1].get("account", {}) if rows else {}
    windows = stage_windows(cfg, rows, [e.t for e in evaluations], spans)
    return Report(
        run=cfg.name,
        finished=finished,
        directory=str(directory.resolve()),
        seconds=_seconds(rows, evaluations, spans, status),
        seed=cfg.seed,
        stages=[_stage(cfg, name, rows, windows) for name in cfg.stages],
        evaluations=evaluations,
        tokens=status.tokens if status else account,
        groups=status.counts if status else {},
        idle={name: idle_shares(spans, *window) for name, window in windows.items()},
        lags=lag_histogram([row for row in rows if cfg.stages[str(row["stage"])].source == "rollouts"]),
        versions=max((int(row["step"]) for row in rows), default=0),
        digest=final_digest(directory / "final"),
        message=status.message if status else "",
        examples=pick_examples([rollout_row(row) for row in read_jsonl(directory / "rollouts.jsonl")]),
    )


def read_config(directory: Path) -> RunConfig:
    """The settings of a run. Raises DataError when there is none."""
    file = directory / "config.toml"
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{directory} is no run: it has no config.toml; `rlsp run CONFIG` makes one") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise DataError(f"{file}: no valid TOML: {e}") from None
    return config.convert(table, RunConfig, str(file))


def read_status(directory: Path) -> Status | None:
    """The supervisor's last look at the hub; None when it never saw it."""
    try:
        return msgspec.json.decode((directory / "status.json").read_bytes(), type=Status)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def write_status(directory: Path, status: Status) -> None:
    """For the report. Raises MachineError when the disk refuses."""
    write_whole(directory / "status.json", msgspec.json.encode(status))


def read_steps(directory: Path, spans: list[Span]) -> list[Row]:
    """One row a step, in order: a step that was trained again after a crash counts once, the last time."""
    trained_at = {
        int(span.what.removeprefix("step ")): span.t1
        for span in spans
        if span.kind == "train" and span.what.removeprefix("step ").isdigit()
    }
    rows = [row for row in read_jsonl(directory / "metrics.jsonl") if row.get("kind") == "step"]
    by_step = {int(row["step"]): step_row(row, trained_at) for row in rows}
    return [by_step[step] for step in sorted(by_step)]


def read_evaluations(directory: Path) -> list[Evaluation]:
    """In the order in which they were made, each once."""
    found = [evaluation_row(row) for row in read_jsonl(directory / "evaluations.jsonl")]
    return list({(e.when, e.stage): e for e in found}.values())


def stage_windows(
    cfg: RunConfig, rows: list[Row], others: list[float], spans: list[Span]
) -> dict[str, tuple[float, float]]:
    """When each stage trained: from the event before its first step (or the first span) to its last step."""
    events = sorted([float(row["t"]) for row in rows] + others)
    windows = {}
    for name in cfg.stages:
        times = [float(row["t"]) for row in rows if row.get("stage") == name]
        if not times:
            continue
        before = [t for t in events if t < times[0]]
        start = before[-1] if before else min((span.t0 for span in spans), default=times[0])
        windows[name] = (min(start, times[0]), times[-1])
    return windows


def _stage(cfg: RunConfig, name: str, rows: list[Row], windows: dict[str, tuple[float, float]]) -> StageSummary:
    mine = [row for row in rows if row.get("stage") == name]
    stage = cfg.stages[name]
    per_step = stage.groups_per_step * (1 if stage.source != "rollouts" else cfg.sampling.rollouts)
    rewards, verified = _numbers(mine, "reward"), _numbers(mine, "verification_balanced")
    tenth, tenth_verified = max(1, len(rewards) // 10), max(1, len(verified) // 10)
    start, end = windows.get(name, (0.0, 0.0))
    lagged = mine if stage.source == "rollouts" else []
    return StageSummary(
        name=name,
        steps=max((int(row.get("stage_step", 0)) for row in mine), default=0),  # a crash may have taken a row
        planned_steps=stage.steps,
        seconds=end - start,
        rollouts=sum(int(row.get("num_rollouts", per_step)) for row in mine),
        tokens=sum(int(row.get("tokens", 0)) for row in mine),
        first_version=int(mine[0]["step"]) if mine else 0,
        last_version=int(mine[-1]["step"]) if mine else 0,
        lag_mean=_mean(_numbers(lagged, "lag_mean")),
        lag_max=max(_numbers(lagged, "lag_max"), default=None),
        reward_first=_mean(rewards[:tenth]),
        reward_last=_mean(rewards[-tenth:]),
        verification_share=_mean(_numbers(mine, "verification_share")),
        verification_first=_mean(verified[:tenth_verified]),
        verification_last=_mean(verified[-tenth_verified:]),
    )


def lag_histogram(rows: list[Row]) -> dict[str, int]:
    """Sums the counts lag_0, lag_1, ... of the steps; without them, a step's rollouts by its rounded mean lag."""
    counts: Counter[int] = Counter()
    for row in rows:
        named = {int(k[4:]): int(v) for k, v in row.items() if k.startswith("lag_") and k[4:].isdigit()}
        if not named and (mean := _number(row, "lag_mean")) is not None:
            named = {round(mean): int(row.get("num_rollouts", 1))}
        counts.update(named)
    return {str(lag): counts[lag] for lag in sorted(counts)}


def pick_examples(rows: list[Row]) -> list[Row]:
    """Up to four from before and four from after, the right ones and the wrong ones in turn."""
    picked: list[Row] = []
    for when in ("before", "after"):
        mine = [row for row in rows if row.get("when") == when]
        right = [row for row in mine if row.get("status") == "correct"]
        wrong = [row for row in mine if row.get("status") != "correct"]
        half = EXAMPLES // 2
        chosen = right[: max(half, EXAMPLES - len(wrong))] + wrong[: max(half, EXAMPLES - len(right))]
        picked += chosen[:EXAMPLES]
    return picked


def final_digest(directory: Path) -> str:
    """SHA-256 over the weight files in the order of their names; empty when there are none (or 8 GiB and more)."""
    files = sorted(directory.glob("*.safetensors"))
    if not files or sum(file.stat().st_size for file in files) > DIGEST_LIMIT_BYTES:
        return ""
    digest = hashlib.sha256()
    for file in files:
        with open(file, "rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return f"sha256:{digest.hexdigest()}"


def _seconds(rows: list[Row], evaluations: list[Evaluation], spans: list[Span], status: Status | None) -> float:
    times = [float(row["t"]) for row in rows] + [e.t for e in evaluations] + [span.t1 for span in spans]
    starts = [span.t0 for span in spans] or times
    return max([max(times) - min(starts) if times else 0.0, status.seconds if status else 0.0])


def _number(row: Row, name: str) -> float | None:
    value = row.get(name)
    return float(value) if isinstance(value, int | float) else None


def _numbers(rows: list[Row], name: str) -> list[float]:
    return [value for row in rows if (value := _number(row, name)) is not None]


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


# --- writing -------------------------------------------------------------------------------------------------------


def write_report(directory: Path, *, finished: bool) -> Report:
    """report.json and report.html, each whole or not at all."""
    from rlsp_async.report.html import page

    report = build_report(directory, finished=finished)
    write_whole(directory / "report.html", page(report, directory).encode())
    write_whole(directory / "report.json", msgspec.json.format(msgspec.json.encode(report)))
    return report


def load_report(directory: Path) -> Report | None:
    """report.json; None when it is not there. Raises DataError when it is damaged."""
    file = directory / "report.json"
    try:
        return msgspec.json.decode(file.read_bytes(), type=Report)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as e:
        raise DataError(f"{file}: cannot be read: {e}; remove it, `rlsp report` makes it again") from None


def write_whole(path: Path, content: bytes) -> None:
    """Written beside and renamed. Raises MachineError when the disk refuses."""
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(content)
        os.replace(part, path)
    except OSError as e:
        raise unwritable(path, e) from None
