"""Evaluation as a phase of the run: all held-out prompts at one fixed version, while nothing trains. Pure."""

from __future__ import annotations

from rlsp_async.columns import num_values
from rlsp_async.messages import RolloutGroup, Verdict
from rlsp_async.replay.evaluation import PromptScore, summarize
from rlsp_async.replay.lines import evaluation_lines
from rlsp_async.replay.records import Evaluated, GroupRecord
from rlsp_async.replay.sampling_work import num_evaluation_prompts
from rlsp_async.replay.state import Effects, HubState, MetricRow


def finish_evaluation(state: HubState, out: Effects, now: float) -> bool:
    """Counts the evaluation when every prompt was issued and is judged or dropped. Returns whether it did."""
    phase = state.phase
    if phase is None or phase.kind != "evaluate":
        return False
    num_issued, num_wanted = state.cursors.get(phase.key, 0), num_evaluation_prompts(state)
    if num_issued < num_wanted:
        return False
    heads = [head for head in state.ledger.heads.values() if head.evaluation == phase.key]
    if any(head.state != "ready" for head in heads):
        return False
    heads.sort(key=lambda head: head.index)
    scores = [score(state.ledger.bodies[h.group_id], state.ledger.verdicts[h.group_id]) for h in heads]
    row = {
        "kind": "evaluation",
        "key": phase.key,
        "when": phase.key.split(" ")[0],
        "stage": phase.stage,
        "step": state.step,
        "version": state.version,
        "seconds": now,
        "took_s": now - state.phase_since_s,
        "num_dropped": num_wanted - len(heads),
        "oldest_version": _oldest(heads),
        **summarize(scores),
    }
    out.lines.append(MetricRow("evaluations", row))
    out.lines.extend(evaluation_lines(state, phase.key, heads, now))
    out.records.extend(state.ledger.evaluated(head.group_id) for head in heads)
    out.records.append(Evaluated(key=phase.key, result=row))
    state.evaluations[phase.key] = row
    state.metrics.update({name: value["mean"] for name, value in row.items() if isinstance(value, dict)})
    return True


def score(group: RolloutGroup, verdicts: list[Verdict]) -> PromptScore:
    """What the summary needs of one judged group."""
    return PromptScore(
        correct=[float(verdict.status == "correct") for verdict in verdicts],
        lengths=[num_values(rollout.token_ids) for rollout in group.rollouts],
        truncated=[float(rollout.finish == "length") for rollout in group.rollouts],
        steps=[verdict.parts["search_steps"] for verdict in verdicts if "search_steps" in verdict.parts],
    )


def _oldest(heads: list[GroupRecord]) -> int:
    return min((head.oldest for head in heads), default=-1)
