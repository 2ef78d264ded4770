"""Rows of metrics.jsonl, rollouts.jsonl and timeline.jsonl. Pure; times are seconds of the run.

metrics    one row a trained step: the learner's figures, lag, reward parts, lengths, waits, the token account
rollouts   a few rollouts of each ROLLOUTS_EVERY-th step and of each evaluation, with text and verdict
timeline   spans {"t0", "t1", "worker", "kind", "what"}: sample, verify, train, load, evaluate
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from rlsp_async.columns import ints, num_values
from rlsp_async.messages import Rollout, RolloutGroup, StepReport, Verdict
from rlsp_async.replay.ledger import lag
from rlsp_async.replay.records import GroupRecord, Manifest
from rlsp_async.replay.spawn import figures as spawn_figures
from rlsp_async.replay.state import HubState, MetricRow
from rlsp_async.replay.success.mend import figures as success_figures
from rlsp_async.replay.workers import Lease

ROLLOUTS_EVERY = 8
GROUPS_SHOWN = 2
PROMPTS_SHOWN = 8
ROLLOUTS_SHOWN = 2

STATUS_METRICS = ("lag_mean", "lag_max", "tokens_per_s", "response_tokens", "loss", "reward")


def span(t0: float, t1: float, worker: str, kind: str, what: str) -> MetricRow:
    """One bar of the timeline."""
    return MetricRow("timeline", {"t0": round(t0, 4), "t1": round(t1, 4), "worker": worker, "kind": kind, "what": what})


def lease_span(lease: Lease, now: float) -> MetricRow:
    """The time a piece of work was in a worker's hands, its queue there included."""
    what = f"step {lease.key}" if lease.kind == "train" else f"group {lease.key}"
    return span(lease.since_s, now, lease.worker, lease.kind, what)


def step_lines(state: HubState, manifest: Manifest, report: StepReport, now: float) -> list[MetricRow]:
    """The rows of one trained step; called while its groups are still in training."""
    heads = [state.ledger.heads[group_id] for group_id in manifest.groups]
    took_s = max(1e-9, now - state.stepped_s)
    generated = state.ledger.account["generated"]
    row: dict[str, Any] = {
        "kind": "step",
        "step": manifest.step,
        "stage": manifest.stage,
        "stage_step": manifest.stage_step,
        "t": now,
        "took_s": took_s,
        "version": report.weights.version if report.weights else state.version,
        **report.metrics,
        **_batch_figures(state, heads, manifest.step, now),
        **_propensities(manifest, heads),
        **_temperatures(state, manifest.stage, heads),
        **_spawned(state, heads, manifest),
        **success_figures(state, manifest),
        **{name: num for name, num in state.metrics.items() if name.startswith("refused.")},
        "tokens_per_s": (generated - state.generated_then) / took_s,
        "groups": state.ledger.counts(),
        "dropped": dict(state.ledger.dropped),
        "account": state.ledger.tokens(),
        **state.disk.figures(),
    }
    state.generated_then, state.stepped_s = generated, now
    state.step_seconds.append(took_s)
    state.metrics.update(
        {
            name: float(value)
            for name, value in row.items()
            if isinstance(value, (int, float)) and (name in STATUS_METRICS or name.startswith("parts."))
        }
    )
    lines = [MetricRow("metrics", row)]
    if manifest.stage_step % ROLLOUTS_EVERY == 1:
        lines += _shown(state, heads[:GROUPS_SHOWN], {"kind": "train", "step": manifest.step, "seconds": now})
    return lines


def evaluation_lines(state: HubState, key: str, heads: list[GroupRecord], now: float) -> list[MetricRow]:
    """A few rollouts of the first prompts, and the bar of the whole evaluation."""
    what = {"kind": "evaluate", "evaluation": key, "step": state.step, "seconds": now}
    return [*_shown(state, heads[:PROMPTS_SHOWN], what), span(state.phase_since_s, now, "replay", "evaluate", key)]


def _batch_figures(state: HubState, heads: list[GroupRecord], step: int, now: float) -> dict[str, float]:
    bodies = [state.ledger.bodies[head.group_id] for head in heads]
    lengths = [num_values(rollout.token_ids) for group in bodies for rollout in group.rollouts]
    cut = [float(rollout.finish == "length") for group in bodies for rollout in group.rollouts]
    lags = [lag(head, step) for head in heads]
    verdicts = [v for head in heads for v in state.ledger.verdicts.get(head.group_id, [])]
    figures = {
        "num_groups": len(heads),
        "num_rollouts": len(lengths),
        "tokens": sum(lengths),
        "response_tokens": _mean(lengths),
        "truncated": _mean(cut),
        "lag_mean": _mean(lags),
        "lag_max": max(lags),
        **{f"lag_{n}": lags.count(n) for n in sorted(set(lags))},
        "uses_mean": _mean(head.uses for head in heads),
        "sample_s": _mean(head.sampled_s - head.issued_s for head in heads),
        "verify_s": _mean(head.ready_s - head.sampled_s for head in heads),
        "ready_s": _mean(now - head.ready_s for head in heads),
    }
    return {**figures, **_parts(verdicts)}


def _propensities(manifest: Manifest, heads: list[GroupRecord]) -> dict[str, float]:
    """How unevenly groups (`choice_`) and their prompts (`prompt_`) were drawn, relative to uniform; none if evenly."""
    figures: dict[str, float] = {}
    for name, values in (("choice", manifest.propensities), ("prompt", [head.propensity for head in heads])):
        if any(value != 1.0 for value in values):
            figures |= {f"{name}_propensity_min": min(values), f"{name}_propensity_max": max(values)}
    return figures


def _temperatures(state: HubState, stage: str, heads: list[GroupRecord]) -> dict[str, float]:
    """At which temperatures the batch was drawn, if not all at sampling.temperature, and what the schedule knows."""
    common = state.cfg.sampling.temperature
    drawn = [head.temperature or common for head in heads]
    schedule = state.schedules.get(stage)
    figures = {} if schedule is None else {f"temperature_{k}": v for k, v in schedule.figures().items()}
    if any(temperature != common for temperature in drawn):
        figures |= {"temperature_mean": _mean(drawn), "temperature_min": min(drawn), "temperature_max": max(drawn)}
    return figures


def _spawned(state: HubState, heads: list[GroupRecord], manifest: Manifest) -> dict[str, float]:
    """Problems and verifications told apart; nothing where no children are spawned."""
    if manifest.stage not in state.spawners:
        return {}
    ledger = state.ledger
    return spawn_figures(
        [(head, ledger.bodies[head.group_id].prompt, ledger.verdicts.get(head.group_id, [])) for head in heads],
        manifest.step,
    )


def _parts(verdicts: list[Verdict]) -> dict[str, float]:
    """Means of the reward parts, each over the verdicts that have it, as "parts.NAME"."""
    values: dict[str, list[float]] = defaultdict(list)
    for verdict in verdicts:
        for name, value in verdict.parts.items():
            values[f"parts.{name}"].append(value)
    return {name: _mean(values[name]) for name in sorted(values)}


def _shown(state: HubState, heads: list[GroupRecord], what: dict[str, Any]) -> list[MetricRow]:
    lines = []
    for head in heads:
        group, verdicts = state.ledger.bodies[head.group_id], state.ledger.verdicts.get(head.group_id, [])
        for place, rollout in enumerate(group.rollouts[:ROLLOUTS_SHOWN]):
            row = {**what, "stage": head.stage, **_rollout_row(group, rollout)}
            if verdicts:
                verdict = verdicts[place]
                row.update(status=verdict.status, parts=verdict.parts, extracted=verdict.extracted)
            lines.append(MetricRow("rollouts", row))
    return lines


def _rollout_row(group: RolloutGroup, rollout: Rollout) -> dict[str, Any]:
    versions = ints(rollout.versions)
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
        "oldest_version": int(versions.min()) if len(versions) else -1,
        "newest_version": int(versions.max()) if len(versions) else -1,
    }


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers) if numbers else 0.0
