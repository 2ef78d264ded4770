"""Success replay in the life of the hub: failed groups of a new batch are mended, then its successes remembered. Pure.

The order is ARPO's: what a batch itself found is remembered after its groups were mended, so that no rollout stands in
for one of its own group or batch.
"""

from __future__ import annotations

from rlsp_async.columns import ints
from rlsp_async.messages import VerifiedGroup
from rlsp_async.replay.records import GroupRecord, Judged, Manifest, Replayed, Success
from rlsp_async.replay.state import Effects, HubState
from rlsp_async.replay.success.memory import has_failed, mended

REPLACED = 0
"""Index of the rollout that gives its place: all have failed, so it does not matter which."""


def mend(state: HubState, out: Effects, chosen: list[GroupRecord], step: int) -> list[Replayed]:
    """Draws a success for each failed group of a batch and charges it. `chosen`: before the batch was charged."""
    found: list[Replayed] = []
    for head in chosen:
        cfg = state.success_replay[head.stage]
        if not cfg.capacity or head.parent or not has_failed(cfg, state.ledger.verdicts[head.group_id]):
            continue
        success = state.memory.draw(cfg, head.stage, head.index, step, head.group_id, state.cfg.seed)
        if success is None:
            continue
        record = state.memory.charge(success, step)
        out.records.append(record)
        found.append(
            Replayed(
                group_id=head.group_id,
                rollout=REPLACED,
                source_group=success.group_id,
                source_rollout=success.rollout,
                uses=record.success.uses,
            )
        )
    return found


def remember(state: HubState, out: Effects, chosen: list[GroupRecord], step: int) -> None:
    """The successes of groups that are trained for the first time are remembered."""
    order = 0
    for head in chosen:
        cfg = state.success_replay[head.stage]
        if not cfg.capacity or head.uses or head.parent:
            continue  # a child answers another question than the problem at its place
        body = state.ledger.bodies[head.group_id]
        for rollout, verdict in zip(body.rollouts, state.ledger.verdicts[head.group_id], strict=True):
            if verdict.status != "correct" or not rollout.token_ids:
                continue
            success = Success(
                group_id=head.group_id,
                rollout=rollout.index,
                stage=head.stage,
                place=head.index,
                oldest=int(ints(rollout.versions).min()),
                since=step,
                order=order,
            )
            out.records += state.memory.remember(cfg, success, Judged(rollout=rollout, verdict=verdict))
            order += 1


def with_successes(state: HubState, manifest: Manifest, groups: list[VerifiedGroup]) -> list[VerifiedGroup]:
    """The groups of a batch that is not reported yet, as its learner gets them."""
    if not manifest.replayed:
        return groups
    return mended(groups, manifest.replayed, {one.source: state.memory.body(one.source) for one in manifest.replayed})


def figures(state: HubState, manifest: Manifest) -> dict[str, float]:
    """Of a trained step: how many of its rollouts were replayed, and how old they were. Off: nothing."""
    if not state.success_replay[manifest.stage].capacity:
        return {}
    ages = [
        manifest.step - 1 - int(ints(state.memory.body(one.source).rollout.versions).min()) for one in manifest.replayed
    ]
    failed = sum(state.ledger.heads[group_id].num_correct == 0 for group_id in manifest.groups)
    num = sum(state.ledger.heads[group_id].num_rollouts for group_id in manifest.groups)
    return {
        "replayed": len(ages) / num,
        "replayed_groups": len(ages),
        "failed_groups": failed,
        "replayed_age_mean": sum(ages) / max(1, len(ages)),
        "remembered": state.memory.num_kept,
    }
