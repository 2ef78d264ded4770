"""Sampler work: which prompt is issued to whom, and what becomes of the rollouts. Demonstrations are admitted here too.

Pure. A slot is born when a prompt is issued, which happens when a sampler has credit for it, not earlier.
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec
import numpy as np

from rlsp_async.columns import floats
from rlsp_async.errors import DataError
from rlsp_async.messages import Prompt, RolloutGroup, SampleJob, Sampling, VerifiedGroup
from rlsp_async.replay.ledger import check_whole, count_tokens, is_stale, num_to_admit, versions_of
from rlsp_async.replay.outcomes import has_signal
from rlsp_async.replay.records import Cursor, GroupRecord, Learnt
from rlsp_async.replay.setbacks import charge, drop, void
from rlsp_async.replay.spawn import SPAWNED, child_head, stamped
from rlsp_async.replay.state import Effects, HubState
from rlsp_async.replay.workers import Worker

_MIX = 0x9E3779B97F4A7C15  # odd: neighbouring group ids get seeds far apart


def next_sample_job(state: HubState, out: Effects, worker: Worker, now: float) -> SampleJob | None:
    """A group that is issued again, or a new prompt if a slot is free; None when this sampler gets nothing now."""
    if state.phase is None or not may_sample(state, worker):
        return None
    group_id = state.pop_for(state.to_sample, worker, "issued")
    if group_id is not None:
        return _job(state, state.ledger.heads[group_id])
    head = _new_head(state, out, now)
    if head is None:
        return None
    out.records.append(state.ledger.issue(head))
    return _job(state, head)


def may_sample(state: HubState, worker: Worker) -> bool:
    """Only the newest published version starts new rollouts: with as many slots as one batch (`target_lag` 0) every
    token is then of the version that the batch trains, which is synchronous RL."""
    in_training_on_rollouts = state.stage is not None and state.stage.source == "rollouts"
    return worker.version == state.version and (state.stage is None or in_training_on_rollouts)


def room(state: HubState) -> int:
    """Training groups that may be issued or admitted now; 0 outside of training."""
    stage, phase = state.stage, state.phase
    if stage is None or phase is None or state.ending or state.disk.is_paused:
        return 0
    steps_left = state.plan.last_step[phase.stage] - state.last_manifest
    needed = math.ceil(steps_left * stage.groups_per_step * stage.oversample)
    return num_to_admit(
        state.ledger.alive, stage.capacity, state.ledger.waiting, needed if stage.max_uses == 1 else None
    )


def may_issue(state: HubState) -> bool:
    """Whether a new prompt could be issued."""
    phase = state.phase
    if phase is not None and phase.kind == "evaluate":
        return state.cursors.get(phase.key, 0) < num_evaluation_prompts(state)
    return room(state) > 0


def num_evaluation_prompts(state: HubState) -> int:
    """Held-out prompts of one evaluation."""
    size = state.task.size("test")
    return state.cfg.evaluation.prompts if size is None else min(size, state.cfg.evaluation.prompts)


def accept_group(state: HubState, out: Effects, group: RolloutGroup, now: float) -> bool:
    """Rollouts came. The first whole result of a group wins, whoever brings it; False: this one is too late."""
    head = state.ledger.heads.get(group.group_id)
    if head is None or head.state != "issued":
        return False
    void(state, out, "sample", group.group_id, "another worker was first")
    if any(rollout.finish == "abort" for rollout in group.rollouts):
        _received(state, out, count_tokens(group))
        out.records.append(state.ledger.waste(group.group_id, count_tokens(group)))
        charge(state, out, group.group_id, "sample", "lost", "its rollouts were aborted", now)
        return True
    try:
        _check_answer(state, head, group)
        record = state.ledger.sampled(stamped(head, group), now)
    except DataError as e:
        charge(state, out, group.group_id, "sample", "faults", str(e), now)
        return True
    out.records.append(record)
    _received(state, out, record.head.num_tokens)
    state.forget(group.group_id)
    stage = state.stage
    if stage is not None and is_stale(record.head, state.step + 1, stage.max_lag):
        drop(state, out, group.group_id, "stale", now)
    else:
        state.to_verify.append(group.group_id)
    state.moved(f"group {group.group_id} was sampled", now)
    return True


def admit_demonstrations(state: HubState, out: Effects, groups: list[tuple[int, VerifiedGroup]], now: float) -> int:
    """Admits (cursor, group) in order while there is room; returns how many. Group ids are given here."""
    phase, source = state.phase, state.stage.source if state.stage else ""
    num = 0
    for cursor, made in groups[: room(state)]:
        if phase is None or cursor != state.cursors.get(source, 0):
            break
        group = _numbered(made.group, state.next_group_id(), phase.stage)
        head = GroupRecord(
            group_id=group.group_id,
            stage=phase.stage,
            provenance="demonstration",
            index=group.prompt.index,
            visit=group.prompt.visit,
            issued_s=now,
        )
        signal = bool(made.verdicts) and has_signal(group, made.verdicts, state.cfg.stages[phase.stage].reward)
        record = state.ledger.demonstrated(head, group, made.verdicts, now, signal)
        out.records.append(record)
        _received(state, out, record.head.num_tokens)
        _count_up(state, out, source)
        num += 1
    if num:
        state.moved(f"{num} {source} were admitted", now)
    return num


def _numbered(group: RolloutGroup, group_id: int, stage: str) -> RolloutGroup:
    return msgspec.structs.replace(group, group_id=group_id, stage=stage)


def _new_head(state: HubState, out: Effects, now: float) -> GroupRecord | None:
    assert state.phase is not None
    if state.disk.is_paused:
        return None
    if state.phase.kind == "evaluate":
        key = state.phase.key
        index = state.cursors.get(key, 0)
        if index >= num_evaluation_prompts(state):
            return None
        _count_up(state, out, key)
        return GroupRecord(
            group_id=state.next_group_id(),
            stage=state.phase.stage,
            purpose="evaluate",
            evaluation=key,
            split="test",
            index=index,
            issued_s=now,
        )
    if room(state) < 1:
        return None
    stage = state.phase.stage
    child = _child(state, out, stage, now)
    if child is not None:
        return child
    cursor = state.cursors.get("train", 0)
    draw = state.selectors[stage].draw(cursor, state.ledger.pending)
    _count_up(state, out, "train")
    if draw.row:
        out.records.append(Learnt(stage=stage, place=draw.index, row=draw.row))
    return GroupRecord(
        group_id=state.next_group_id(),
        stage=stage,
        index=int(draw.index),
        visit=int(draw.visit),
        propensity=float(draw.propensity),
        issued_s=now,
        temperature=float(state.schedules[stage].draw(cursor)),
    )  # a selection of the user's may count in numpy


def _child(state: HubState, out: Effects, stage: str, now: float) -> GroupRecord | None:
    """The child that this draw asks for, if it does and there is one; its parent is charged in the same commit."""
    number = state.cursors.get("train", 0) + state.cursors.get(SPAWNED, 0)
    spawner = state.spawners.get(stage)
    if spawner is None or not spawner.is_due(number):
        return None
    child = spawner.choose(state.ledger, stage, number, state.cursors)
    if child is None:
        return None
    out.records.append(state.ledger.spawned(child.parent.group_id))
    _count_up(state, out, SPAWNED)
    used = f"{SPAWNED}/{child.status}"
    _count_up(state, out, used, number + 1 - state.cursors.get(used, 0))
    return child_head(child, state.next_group_id(), now)


def _received(state: HubState, out: Effects, num_tokens: int) -> None:
    """Adds up what reached the hub, apart from the heads, so that the token account can be checked against it."""
    _count_up(state, out, "generated", num_tokens)


def _count_up(state: HubState, out: Effects, name: str, num: int = 1) -> None:
    state.cursors[name] = state.cursors.get(name, 0) + num
    out.records.append(Cursor(name=name, value=state.cursors[name]))


def _job(state: HubState, head: GroupRecord) -> SampleJob:
    return SampleJob(
        group_id=head.group_id,
        prompt=prompt_of(state, head),
        sampling=sampling_of(state, head),
        purpose=head.purpose,
        stage=head.stage,
    )


def prompt_of(state: HubState, head: GroupRecord) -> Prompt:
    """The prompt of an issued group, made again from its place in the split; a child's is in its head."""
    if head.prompt is not None:
        return head.prompt
    drawn = head.purpose == "train"
    return msgspec.structs.replace(
        state.prompt(_split(head), head.index),
        index=head.index,
        visit=head.visit,
        propensity=head.propensity,
        selector=state.cfg.stages[head.stage].prompts.name if drawn else "uniform",
    )


def _split(head: GroupRecord) -> Literal["train", "test"]:
    return "test" if head.split == "test" else "train"


def sampling_of(state: HubState, head: GroupRecord) -> Sampling:
    """How its rollouts are drawn: a seed and a temperature of its own, the same when it is issued again."""
    cfg = state.cfg
    rollouts = cfg.evaluation.rollouts if head.purpose == "evaluate" else cfg.sampling.rollouts
    return Sampling(
        temperature=head.temperature or cfg.sampling.temperature,
        max_new_tokens=cfg.sampling.max_new_tokens,
        rollouts=rollouts,
        seed=((cfg.seed << 32) + head.group_id) * _MIX % 2**31,
    )


def _check_answer(state: HubState, head: GroupRecord, group: RolloutGroup) -> None:
    issued = _job(state, head)
    if group.prompt.prompt_id != issued.prompt.prompt_id:
        raise DataError(f"group {group.group_id} came with {group.prompt.prompt_id!r}, the prompt of another group")
    if (group.prompt, group.sampling, group.purpose, group.stage, group.provenance) != (
        issued.prompt,
        issued.sampling,
        issued.purpose,
        issued.stage,
        "rollout",
    ):
        raise DataError(f"group {group.group_id} came with another prompt, sampling or purpose than it was issued with")
    expected = issued.sampling.rollouts
    if len(group.rollouts) != expected:
        raise DataError(f"group {group.group_id} came with {len(group.rollouts)} rollouts, {expected} were asked for")
    check_whole(group)
    if not np.isfinite(floats(b"".join(rollout.logprobs for rollout in group.rollouts))).all():
        bad = [rollout.index for rollout in group.rollouts if not np.isfinite(floats(rollout.logprobs)).all()]
        raise DataError(f"group {group.group_id}, rollout {bad[0]}: a log-prob is not finite")
    newest = versions_of(group)[1]
    if newest > state.step:  # no lag is below 0: the journal knows no such weights
        raise DataError(f"group {group.group_id}: tokens of version {newest}, the newest step is {state.step}")
