"""The results of a run, read from its files alone: settings, metrics, evaluations, timeline, rollouts, last status.

    report = build_report(run)          # at any time, also while the run goes on

Reads config.toml, metrics.jsonl, evaluations.jsonl, timeline.jsonl, rollouts.jsonl and status.json (the supervisor's
last look at the hub: the token account). Times are seconds since the run began.

Rows, as this module hands them on:

    step        {"step", "stage", "stage_step", "t", "reward", "part_correct", "lag_mean", ...}     numbers only
    evaluation  EvaluationRow(stage, when, version, figures={"pass_at_1": FigureEstimate(...), "pass_at_8": ...})
    rollout     {"when": step | before | after, "prompt", "text", "status", "num_tokens", "version_min", "version_max"}
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from rlsp_async import config
from rlsp_async.config import RunConfig
from rlsp_async.errors import DataError
from rlsp_async.jsonl import read_whole_lines
from rlsp_async.messages import Status

Row = dict[str, Any]
"""One line of a jsonl file."""
PART = "part_"
"""The beginning of a metric's name that is the mean of a reward part. Example: part_correct."""
DIGEST_LIMIT_BYTES = 8 << 30
NUM_EXAMPLES = 4
"""Rollouts to read from each evaluation."""
MAX_SPANS = 200
"""Up to this number, spans of one kind are drawn one by one, also where they touch."""


class FigureEstimate(msgspec.Struct, frozen=True, kw_only=True):
    """A mean over prompts and its 95 % interval."""

    mean: float
    low: float
    high: float


class EvaluationRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One evaluation. Figures: pass_at_1, pass_at_2 .. pass_at_k, response_tokens, search_steps, truncated."""

    stage: str
    when: str
    """before | during | after"""
    version: int
    prompts: int
    rollouts: int
    """Rollouts of each prompt."""
    figures: dict[str, FigureEstimate]
    t: float = 0.0
    """When it was made, in seconds of the run."""
    stage_step: int = 0
    """Step of the stage whose version was evaluated; 0 before it."""

    @property
    def label(self) -> str:
        """The evaluation in a word or two: "before rlsp", "rlsp step 8"."""
        return f"{self.stage} step {self.stage_step}" if self.when == "during" else f"{self.when} {self.stage}"

    @property
    def k(self) -> int:
        """The largest k of the estimated pass@k figures; 0 when there are none."""
        ks = [int(m[1]) for name in self.figures if (m := re.fullmatch(r"pass_at_(\d+)", name))]
        return max(ks, default=0)

    def figure(self, name: str) -> FigureEstimate | None:
        """A figure by its name; None when the evaluation does not have it."""
        return self.figures.get(name)


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
    """Share of the groups that were spawned to verify a rollout. This and the next two are None without spawning."""
    verification_first: float | None = None
    """Balanced accuracy of the verifications, mean over the first tenth of the steps that have any."""
    verification_last: float | None = None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The results of a run. Figures that a run does not have are None or empty."""

    run: str
    finished: bool
    directory: str
    seconds: float
    seed: int
    stages: list[StageSummary]
    evaluations: list[EvaluationRow]
    tokens: dict[str, int] = {}
    """The token account: generated == the sum of the others."""
    groups: dict[str, int] = {}
    """Groups by state at the end."""
    idle: dict[str, dict[str, float]] = {}
    """Idle share of each worker, by stage."""
    lags: dict[str, int] = {}
    """Trained rollouts by lag (as text: JSON keys)."""
    versions: int = 0
    """The newest version."""
    digest: str = ""
    """SHA-256 over the safetensors files of final/."""
    message: str = ""
    warnings: list[str] = []
    """What the reader must know before believing the figures."""
    examples: list[Row] = []
    """A few rollouts of the evaluations before and after."""


class Span(NamedTuple):
    """One piece of work of one worker. Example: Span(3.0, 4.5, "sampler-0", "sample", "group 17")."""

    t0: float
    t1: float
    worker: str
    kind: str
    what: str = ""


# --- the report ----------------------------------------------------------------------------------------------------


def build_report(directory: Path, *, finished: bool = False) -> Report:
    """Reads the run's files. Raises DataError when there is no run here or a file is damaged."""
    cfg = read_config(directory)
    spans = read_spans(directory)
    rows = read_steps(directory)
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
        lags=lag_histogram([row for row in rows if _source(cfg, row) == "rollouts"]),
        versions=max((int(row["step"]) for row in rows), default=0),
        digest=final_digest(directory / "final"),
        message=status.message if status else "",
        warnings=[text for name in cfg.stages if (text := no_signal(cfg, name, rows))],
        examples=pick_examples(read_whole_lines(directory / "rollouts.jsonl", rollout_row)),
    )


def no_signal(cfg: RunConfig, name: str, rows: list[Row]) -> str:
    """A sentence for a stage in which no step had a gradient, so that no weight moved; else empty."""
    steps, source = [row for row in rows if row["stage"] == name], cfg.stages[name].source
    if not steps or any(row.get("grad_norm", 0.0) for row in steps):
        return ""
    if source != "rollouts":
        return (
            f"stage {name}: none of its {len(steps)} steps had a gradient, so no weight moved; does its algorithm, "
            f"{cfg.stages[name].algorithm.name!r}, learn from {source}?"
        )
    rewards = sorted({round(float(row["reward"]), 6) for row in steps if "reward" in row})
    flat = f"the mean reward was {rewards[0]:g} in all of them" if len(rewards) == 1 else "no group's rewards differed"
    return (
        f"stage {name}: none of its {len(steps)} steps had a gradient, so no weight moved ({flat}); the task is too "
        "hard or too easy for the model, or the verifier cannot read its answers: see the rollouts in report.html"
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
    """The last status of the hub that the supervisor saw; None without one."""
    try:
        return msgspec.json.decode((directory / "status.json").read_bytes(), type=Status)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def read_steps(directory: Path) -> list[Row]:
    """One row for each step, in order. A step that was trained again after a crash counts once: its last row."""
    rows = read_whole_lines(directory / "metrics.jsonl", lambda row: step_row(row) if row.get("kind") == "step" else {})
    by_step = {row["step"]: row for row in rows if row}
    return [by_step[step] for step in sorted(by_step)]


def read_evaluations(directory: Path) -> list[EvaluationRow]:
    """Evaluations in the order in which they were made. One that was repeated after a crash counts once."""
    evaluations = read_whole_lines(directory / "evaluations.jsonl", evaluation_row)
    return list({e.label: e for e in evaluations}.values())


def stage_windows(
    cfg: RunConfig, rows: list[Row], others: list[float], spans: list[Span]
) -> dict[str, tuple[float, float]]:
    """The time in which each stage trained: from the event before its first step (or the first span) to its last step.

    Args:
        cfg: the run.
        rows: its steps.
        others: times of other events: evaluations.
        spans: its timeline.

    Returns: start and end of each stage that trained, in seconds of the run.
    """
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
        steps=max((int(row.get("stage_step", 0)) for row in mine), default=0),  # a crash may have lost a row
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
    """Sums the counts lag_0, lag_1, ... of the steps."""
    counts: Counter[int] = Counter()
    for row in rows:
        counts.update({int(k[4:]): int(v) for k, v in row.items() if k.startswith("lag_") and k[4:].isdigit()})
    return {str(lag): counts[lag] for lag in sorted(counts)}


def pick_examples(rows: list[Row]) -> list[Row]:
    """Up to NUM_EXAMPLES rollouts from before and from after, half of them correct if there are enough of both."""
    picked: list[Row] = []
    for when in ("before", "after"):
        mine = [row for row in rows if row.get("when") == when]
        right = [row for row in mine if row.get("status") == "correct"]
        wrong = [row for row in mine if row.get("status") != "correct"]
        half = NUM_EXAMPLES // 2
        chosen = right[: max(half, NUM_EXAMPLES - len(wrong))] + wrong[: max(half, NUM_EXAMPLES - len(right))]
        picked += chosen[:NUM_EXAMPLES]
    return picked


def final_digest(directory: Path) -> str:
    """SHA-256 over the weight files in the order of their names; empty without files, or above DIGEST_LIMIT_BYTES."""
    files = sorted(directory.glob("*.safetensors"))
    if not files or sum(file.stat().st_size for file in files) > DIGEST_LIMIT_BYTES:
        return ""
    digest = hashlib.sha256()
    for file in files:
        with open(file, "rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return f"sha256:{digest.hexdigest()}"


def _seconds(rows: list[Row], evaluations: list[EvaluationRow], spans: list[Span], status: Status | None) -> float:
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


# --- rows ----------------------------------------------------------------------------------------------------------


def step_row(row: Row) -> Row:
    """One row of metrics.jsonl. The hub writes means of reward parts as "parts.NAME", the learner as "part_NAME"."""
    known = {"t": float(row["t"]), "step": int(row["step"]), "stage": str(row["stage"])}
    return {name.replace("parts.", PART, 1): value for name, value in row.items()} | known


def evaluation_row(row: Row) -> EvaluationRow:
    """One row of evaluations.jsonl, whose figures are objects {"mean", "low", "high"}. Raises DataError."""
    try:
        num_prompts = int(row["num_prompts"])
        return EvaluationRow(
            stage=str(row["stage"]),
            when=str(row["when"]),
            version=int(row["version"]),
            prompts=num_prompts,
            rollouts=int(row["num_rollouts"]) // max(1, num_prompts),
            figures={
                name: FigureEstimate(mean=value["mean"], low=value["low"], high=value["high"])
                for name, value in row.items()
                if isinstance(value, dict)
            },
            t=float(row["seconds"]),
            stage_step=int(row.get("stage_step", 0)),
        )
    except (KeyError, TypeError, ValueError) as e:
        raise DataError(f"evaluations.jsonl: a row that cannot be read: {e!r}") from None


def headline_figures(evaluations: list[EvaluationRow]) -> list[str]:
    """Names of the figures for a table, in the order of the file; of the pass@k only pass@1 and the largest k."""
    names = dict.fromkeys(name for e in evaluations for name in e.figures)
    kept = ("pass_at_1", f"pass_at_{max((e.k for e in evaluations), default=0)}")
    return [name for name in names if not name.startswith("pass_at_") or name in kept]


def rollout_row(row: Row) -> Row:
    """One row of rollouts.jsonl: of a trained batch, or of an evaluation ("before STAGE", "after STAGE")."""
    return {
        **row,
        "when": str(row.get("evaluation", "")).partition(" ")[0] or "step",
        "num_tokens": row.get("tokens"),
        "version_min": row.get("oldest_version"),
        "version_max": row.get("newest_version"),
    }


# --- the timeline --------------------------------------------------------------------------------------------------


def read_spans(directory: Path) -> list[Span]:
    """The rows of timeline.jsonl as spans, sorted by their beginnings."""
    return sorted(read_whole_lines(directory / "timeline.jsonl", span_of))


def span_of(row: dict[str, Any]) -> Span:
    """One row of timeline.jsonl."""
    return Span(float(row["t0"]), float(row["t1"]), str(row["worker"]), str(row["kind"]), str(row.get("what", "")))


def merge_intervals(intervals: list[tuple[float, float]], gap_s: float = 0.0) -> list[tuple[float, float]]:
    """Merges overlapping intervals, and those closer than `gap_s`: [(0, 2), (1, 3), (5, 6)] -> [(0, 3), (5, 6)]."""
    joined: list[tuple[float, float]] = []
    for t0, t1 in sorted(intervals):
        if joined and (t0 < joined[-1][1] or 0 < gap_s >= t0 - joined[-1][1]):
            joined[-1] = (joined[-1][0], max(joined[-1][1], t1))
        else:
            joined.append((t0, t1))
    return joined


def spans_by_worker(spans: list[Span], gap_s: float = 0.0) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Merged intervals by worker and kind; samplers first, then verifiers, then the learner."""
    by_worker: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for span in sorted(spans, key=lambda s: (_rank(s.worker), s.worker, s.t0)):
        by_worker.setdefault(span.worker, {}).setdefault(span.kind, []).append((span.t0, span.t1))
    return {
        worker: {
            kind: merge_intervals(times, gap_s if len(times) > MAX_SPANS else 0.0) for kind, times in kinds.items()
        }
        for worker, kinds in by_worker.items()
    }


def idle_shares(spans: list[Span], start: float, end: float) -> dict[str, float]:
    """Share of a time window in which each worker had no work, 0..1. Spans of one worker may overlap."""
    if end <= start:
        return {}
    shares = {}
    for worker in sorted(
        {span.worker for span in spans if span.kind != "evaluate"}, key=lambda name: (_rank(name), name)
    ):
        times = [
            (max(s.t0, start), min(s.t1, end)) for s in spans if s.worker == worker and s.t1 > start and s.t0 < end
        ]
        shares[worker] = max(0.0, 1.0 - sum(t1 - t0 for t0, t1 in merge_intervals(times)) / (end - start))
    return shares


def _source(cfg: RunConfig, row: Row) -> str:
    stage = cfg.stages.get(str(row["stage"]))
    return stage.source if stage is not None else ""


def _rank(worker: str) -> int:
    order = ("sampler", "verifier", "learner")
    return next((i for i, role in enumerate(order) if worker.startswith(role)), len(order))
