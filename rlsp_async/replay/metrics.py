"""Rows of the run's jsonl files, and the files. The rows are pure; times are seconds of the run.

    metrics       one row a trained step: the learner's figures, lag, reward parts, lengths, waits, the token account
    rollouts      a few rollouts of each ROLLOUTS_EVERY-th step and of each evaluation, with text and verdict
    timeline      spans {"t0", "t1", "worker", "kind", "what"}: sample, verify, train, load, evaluate
    evaluations   one row an evaluation (`evaluation.py`)

Timeline and rollouts grow with every group, so they are bounded: at FILE_BYTES the file is renamed to NAME.old.jsonl
and a new one begins. Metrics and evaluations stay whole.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from rlsp_async.errors import unwritable
from rlsp_async.jsonl import JsonlWriter
from rlsp_async.messages import Rollout, RolloutGroup, StepReport, Verdict
from rlsp_async.observations import num_sampled, num_turns, sampled_versions
from rlsp_async.replay.ledger import lag
from rlsp_async.replay.records import GroupRecord, Manifest
from rlsp_async.replay.state import HubState
from rlsp_async.replay.workers import Lease

MetricFile = Literal["metrics", "rollouts", "timeline", "evaluations"]

FILES: tuple[MetricFile, ...] = ("metrics", "rollouts", "timeline", "evaluations")
BOUNDED: frozenset[MetricFile] = frozenset({"rollouts", "timeline"})
FILE_BYTES = 64 << 20
ROWS_BETWEEN_CHECKS = 256
"""Number of rows that are written to a bounded file before its size is checked again."""
ROLLOUTS_EVERY = 8
GROUPS_SHOWN = 2
PROMPTS_SHOWN = 8
ROLLOUTS_SHOWN = 2

STATUS_METRICS = ("lag_mean", "lag_max", "tokens_per_s", "response_tokens", "loss", "reward", "turns")
"""Figures of a metrics row that observers see, besides the reward parts."""


class MetricRow(NamedTuple):
    """One row for one of the files; written after the commit of the event that it belongs to."""

    file: MetricFile
    row: dict[str, Any]


# --- timeline --------------------------------------------------------------------------------------------------------


def span(t0: float, t1: float, worker: str, kind: str, what: str) -> MetricRow:
    """One bar of the timeline."""
    return MetricRow("timeline", {"t0": round(t0, 4), "t1": round(t1, 4), "worker": worker, "kind": kind, "what": what})


def lease_span(lease: Lease, now: float) -> MetricRow:
    """The time for which a piece of work was in a worker's hands, including the time in the worker's own queue."""
    what = f"step {lease.key}" if lease.kind == "train" else f"group {lease.key}"
    return span(lease.since_s, now, lease.worker, lease.kind, what)


# --- steps and evaluations -------------------------------------------------------------------------------------------


def step_rows(state: HubState, manifest: Manifest, report: StepReport, now: float) -> list[MetricRow]:
    """The rows of a step that is reported now; called while its groups are still in training."""
    records = [state.ledger.records[group_id] for group_id in manifest.groups]
    took_s = state.pace.took_s(now)
    row: dict[str, Any] = {
        "kind": "step",
        "step": manifest.step,
        "stage": manifest.stage,
        "stage_step": manifest.stage_step,
        "t": now,
        "took_s": took_s,
        "version": report.weights.version if report.weights else state.version,
        **report.metrics,
        **_batch_figures(state, records, manifest.step, now),
        **_propensities(manifest, records),
        **_temperatures(state, manifest.stage, records),
        **state.policies.figures(manifest, state.ledger),
        **{name: num for name, num in state.pace.figures.items() if name.startswith("refused.")},
        "tokens_per_s": state.pace.tokens_per_s(state.ledger.account["generated"], now),
        "groups": state.ledger.counts(),
        "dropped": dict(state.ledger.dropped),
        "account": state.ledger.tokens(),
        **state.disk.figures(),
    }
    rows = [MetricRow("metrics", row)]
    if manifest.stage_step % ROLLOUTS_EVERY == 1:
        about = {"kind": "train", "step": manifest.step, "seconds": now}
        rows += _rollout_rows(state, records[:GROUPS_SHOWN], about)
    return rows


def status_figures(row: dict[str, Any]) -> dict[str, float]:
    """The figures of a metrics row that observers see."""
    return {
        name: float(value)
        for name, value in row.items()
        if isinstance(value, (int, float)) and (name in STATUS_METRICS or name.startswith("parts."))
    }


def evaluation_rows(state: HubState, key: str, records: list[GroupRecord], now: float) -> list[MetricRow]:
    """A few rollouts of the first prompts of an evaluation, and the bar of the whole evaluation."""
    about = {"kind": "evaluate", "evaluation": key, "step": state.step, "seconds": now}
    bar = span(state.phase_since_s, now, "replay", "evaluate", key)
    return [*_rollout_rows(state, records[:PROMPTS_SHOWN], about), bar]


def _batch_figures(state: HubState, records: list[GroupRecord], step: int, now: float) -> dict[str, float]:
    bodies = [state.ledger.bodies[record.group_id] for record in records]
    lengths = [num_sampled(rollout) for group in bodies for rollout in group.rollouts]
    cut = [float(rollout.finish == "length") for group in bodies for rollout in group.rollouts]
    lags = [lag(record, step) for record in records]
    verdicts = [v for record in records for v in state.ledger.verdicts.get(record.group_id, [])]
    figures = {
        "num_groups": len(records),
        "num_rollouts": len(lengths),
        "tokens": sum(lengths),
        "response_tokens": _mean(lengths),
        "truncated": _mean(cut),
        "lag_mean": _mean(lags),
        "lag_max": max(lags, default=0),
        **{f"lag_{n}": lags.count(n) for n in sorted(set(lags))},
        "uses_mean": _mean(record.uses for record in records),
        "sample_s": _mean(record.sampled_s - record.issued_s for record in records),
        "verify_s": _mean(record.ready_s - record.sampled_s for record in records),
        "ready_s": _mean(now - record.ready_s for record in records),
    }
    return {**figures, **turn_figures(bodies), **_parts(verdicts)}


def turn_figures(groups: list[RolloutGroup]) -> dict[str, float]:
    """Turns of a rollout, and the share of rollouts by how they ended; empty for groups without an environment."""
    rollouts = [rollout for group in groups for rollout in group.rollouts if rollout.ended]
    ended = [rollout.ended for rollout in rollouts]
    if not rollouts:
        return {}
    shares = {f"ended_{how}": ended.count(how) / len(ended) for how in sorted(set(ended))}
    return {"turns": _mean(num_turns(rollout) for rollout in rollouts), **shares}


def _propensities(manifest: Manifest, records: list[GroupRecord]) -> dict[str, float]:
    """How unevenly groups (`choice_`) and their prompts (`prompt_`) were drawn, relative to uniform; empty if
    evenly."""
    figures: dict[str, float] = {}
    for name, values in (("choice", manifest.propensities), ("prompt", [record.propensity for record in records])):
        if any(value != 1.0 for value in values):
            figures |= {f"{name}_propensity_min": min(values), f"{name}_propensity_max": max(values)}
    return figures


def _temperatures(state: HubState, stage: str, records: list[GroupRecord]) -> dict[str, float]:
    """The temperatures of a batch, unless all are sampling.temperature, and what the schedule has learnt."""
    common = state.cfg.sampling.temperature
    drawn = [record.temperature or common for record in records]
    schedule = state.schedules.get(stage)
    figures = {} if schedule is None else {f"temperature_{k}": v for k, v in schedule.figures().items()}
    if any(temperature != common for temperature in drawn):
        figures |= {"temperature_mean": _mean(drawn), "temperature_min": min(drawn), "temperature_max": max(drawn)}
    return figures


def _parts(verdicts: list[Verdict]) -> dict[str, float]:
    """The mean of each reward part over the verdicts that have it, as "parts.NAME"."""
    values: dict[str, list[float]] = defaultdict(list)
    for verdict in verdicts:
        for name, value in verdict.parts.items():
            values[f"parts.{name}"].append(value)
    return {name: _mean(values[name]) for name in sorted(values)}


def _rollout_rows(state: HubState, records: list[GroupRecord], about: dict[str, Any]) -> list[MetricRow]:
    rows = []
    for record in records:
        group, verdicts = state.ledger.bodies[record.group_id], state.ledger.verdicts.get(record.group_id, [])
        for index, rollout in enumerate(group.rollouts[:ROLLOUTS_SHOWN]):
            row = {**about, "stage": record.stage, **_rollout_row(group, rollout)}
            if verdicts:
                verdict = verdicts[index]
                row.update(status=verdict.status, parts=verdict.parts, extracted=verdict.extracted)
            rows.append(MetricRow("rollouts", row))
    return rows


def _rollout_row(group: RolloutGroup, rollout: Rollout) -> dict[str, Any]:
    versions = sampled_versions(rollout)
    is_sampled = group.provenance == "rollout" and len(versions) > 0
    turns = {"turns": num_turns(rollout), "ended": rollout.ended, "claim": rollout.claim} if rollout.ended else {}
    return {
        "group": group.group_id,
        "rollout": rollout.index,
        "prompt_id": group.prompt.prompt_id,
        "provenance": group.provenance,
        "prompt": group.prompt.text,
        "answer": group.prompt.answer,
        "text": rollout.text,
        "finish": rollout.finish,
        "tokens": len(versions),
        "sampler": rollout.sampler,
        "oldest_version": int(versions.min()) if is_sampled else -1,
        "newest_version": int(versions.max()) if is_sampled else -1,
        **turns,
    }


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers) if numbers else 0.0


# --- files -----------------------------------------------------------------------------------------------------------


class MetricLog:
    """Writes the files; blocking, one writer for each. A crash may lose a row of a committed event, and never adds
    one."""

    def __init__(self, directory: Path) -> None:
        self._writers = {name: JsonlWriter(directory / f"{name}.jsonl") for name in FILES}
        self._num_rows = dict.fromkeys(FILES, 0)

    def write(self, rows: Iterable[MetricRow]) -> None:
        """Appends rows in order. Raises MachineError when the disk refuses."""
        for file, row in rows:
            self._writers[file].write(row)
            self._num_rows[file] += 1
            if file in BOUNDED and self._num_rows[file] % ROWS_BETWEEN_CHECKS == 0:
                self._bound(file)

    def _bound(self, name: MetricFile) -> None:
        path = self._writers[name].path
        try:
            if path.stat().st_size < FILE_BYTES:
                return
            self._writers[name].close()
            os.replace(path, path.with_suffix(".old.jsonl"))
        except OSError as e:
            raise unwritable(path, e) from None
        self._writers[name] = JsonlWriter(path)

    def close(self) -> None:
        """Idempotent."""
        for writer in self._writers.values():
            writer.close()
