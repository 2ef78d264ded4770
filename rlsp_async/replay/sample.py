"""The sampler's post: which prompt is issued to which sampler, and what becomes of the rollouts. Pure.

A slot is taken when a prompt is issued, which happens when a sampler has credit for it and not earlier. Demonstrations
and imported rollouts, which nobody samples, are admitted here too.
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from rlsp_async.contents import check_rollouts
from rlsp_async.errors import DataError
from rlsp_async.messages import Prompt, RolloutGroup, SampleJob, Sampling, VerifiedGroup
from rlsp_async.replay import evaluation
from rlsp_async.replay.ledger import count_tokens, is_stale, num_to_admit
from rlsp_async.replay.records import GroupRecord, Learnt
from rlsp_async.replay.state import HubState
from rlsp_async.replay.turn import Accepted, Blamed, Late, Outcome, Turn
from rlsp_async.replay.verify import has_signal
from rlsp_async.replay.workers import Worker

_MIX = 0x9E3779B97F4A7C15  # odd, so that neighbouring group ids get seeds that are far apart


# --- next job --------------------------------------------------------------------------------------------------------


def has_work(state: HubState) -> bool:
    """False when there is certainly nothing for any sampler."""
    return bool(state.queues.sample.queue) or may_issue(state)


def next_job(turn: Turn, worker: Worker) -> SampleJob | None:
    """A group that has to be sampled again, or a new prompt if a slot is free; None when this sampler gets nothing."""
    state = turn.state
    if state.phase is None or not may_sample(state, worker):
        return None
    group_id = state.queues.take(state.queues.sample, worker)
    if group_id is not None:
        return _job(state, state.ledger.records[group_id])
    record = None if state.disk.is_paused else _next_record(turn)
    if record is None:
        return None
    turn.record(state.ledger.issue(record))
    return _job(state, record)


def may_sample(state: HubState, worker: Worker) -> bool:
    """Whether new rollouts may be started on this sampler: one that serves the newest published version.

    With as many slots as one batch (`target_lag` 0) every token is then of the version that the batch trains, which is
    synchronous reinforcement learning. With a `target_lag` of 2 and more, a sampler that is loading a version goes on
    with an older one, at most `target_lag` - 1 behind: it need not idle while the weights come. Its tokens carry their
    version, so that `max_lag` holds. An evaluation is of one version.
    """
    stage = state.stage
    if stage is not None and stage.source != "rollouts":
        return False
    if worker.version == state.version:
        return True
    if stage is None or worker.state != "loading":  # no stage: an evaluation
        return False
    return worker.version >= 0 and 0 < state.version - worker.version <= stage.target_lag - 1


def room(state: HubState) -> int:
    """Number of training groups that may be issued or admitted now; 0 outside of training."""
    stage, phase = state.stage, state.phase
    if stage is None or phase is None or state.ending.has_begun or state.disk.is_paused:
        return 0
    steps_left = state.plan.last_step[phase.stage] - state.training.last_manifest
    needed = math.ceil(steps_left * stage.groups_per_step * stage.oversample)
    return num_to_admit(
        state.ledger.alive, stage.capacity, state.ledger.waiting, needed if stage.max_uses == 1 else None
    )


def may_issue(state: HubState) -> bool:
    """Whether a new prompt could be issued."""
    return evaluation.num_left(state) > 0 or room(state) > 0


def _next_record(turn: Turn) -> GroupRecord | None:
    """A new group: of an evaluation, of a replay policy, or of the next prompt that the stage's selection draws."""
    state, phase = turn.state, turn.state.phase
    assert phase is not None
    if phase.kind == "evaluate":
        return evaluation.next_record(turn)
    if room(state) < 1:
        return None
    issued = state.policies.on_issue(phase.stage, state.ledger, state.counters, turn.now)
    if issued is not None:
        turn.record(*issued.changes)
        return msgspec.structs.replace(issued.record, group_id=state.next_group_id())
    cursor = state.counters["train"]
    draw = state.selectors[phase.stage].draw(cursor, state.ledger.pending)
    turn.count("train")
    if draw.row:
        turn.record(Learnt(stage=phase.stage, index=draw.index, row=draw.row))
    return GroupRecord(  # int and float: a user's own selection may count in numpy
        group_id=state.next_group_id(),
        stage=phase.stage,
        index=int(draw.index),
        visit=int(draw.visit),
        propensity=float(draw.propensity),
        issued_s=turn.now,
        temperature=float(state.schedules[phase.stage].draw(cursor)),
    )


# --- accept ----------------------------------------------------------------------------------------------------------


def accept(turn: Turn, group: RolloutGroup) -> Outcome:
    """Rollouts came. The first whole result of a group is taken, whoever brings it."""
    state = turn.state
    if not state.queues.sample.is_open(group.group_id, state.ledger):
        return Late()
    record = state.ledger.records[group.group_id]
    turn.revoke("sample", group.group_id, "another worker was first")
    if any(rollout.finish == "abort" for rollout in group.rollouts):
        num_tokens = count_tokens(group)
        turn.count("generated", num_tokens)
        turn.record(state.ledger.waste(group.group_id, num_tokens))
        return Blamed("lost", "its rollouts were aborted")
    try:
        versions = _check_answer(state, record, group)
        put = state.ledger.sampled(state.policies.on_sampled(record, group), turn.now, versions)
    except DataError as e:
        return Blamed("faults", str(e))
    turn.record(put)
    turn.count("generated", put.record.num_tokens)
    state.forget_job(group.group_id)
    state.retries.forget(group.group_id)
    if state.stage is not None and is_stale(put.record, state.step + 1, state.stage.max_lag):
        turn.drop(group.group_id, "stale")
    else:
        state.queues.verify.enqueue(group.group_id)
    turn.moved(f"group {group.group_id} was sampled")
    return Accepted()


def admit(turn: Turn, groups: list[tuple[int, VerifiedGroup]]) -> None:
    """Admits demonstrations or imported rollouts, given as (cursor, group), in order while there is room."""
    state, phase = turn.state, turn.state.phase
    source = state.stage.source if state.stage else ""
    num = 0
    for cursor, given in groups[: room(state)]:
        if phase is None or cursor != state.counters[source]:
            break
        group = msgspec.structs.replace(given.group, group_id=state.next_group_id(), stage=phase.stage)
        record = GroupRecord(
            group_id=group.group_id,
            stage=phase.stage,
            provenance="demonstration",
            index=group.prompt.index,
            visit=group.prompt.visit,
            issued_s=turn.now,
        )
        signal = bool(given.verdicts) and has_signal(group, given.verdicts, state.cfg.stages[phase.stage].reward)
        put = state.ledger.demonstrated(record, group, given.verdicts, turn.now, signal)
        turn.record(put)
        turn.count("generated", put.record.num_tokens)
        turn.count(source)
        num += 1
    if num:
        turn.moved(f"{num} {source} were admitted")


# --- what was issued -------------------------------------------------------------------------------------------------


def _job(state: HubState, record: GroupRecord) -> SampleJob:
    """The job of an issued group: the same each time, so it is remembered until its rollouts come."""
    job = state.jobs.get(record.group_id)
    if job is None:
        job = _make_job(state, record)
        state.issued_job(job)
    return job


def _make_job(state: HubState, record: GroupRecord) -> SampleJob:
    return SampleJob(
        group_id=record.group_id,
        prompt=_prompt(state, record),
        sampling=_sampling(state, record),
        purpose=record.purpose,
        stage=record.stage,
    )


def _prompt(state: HubState, record: GroupRecord) -> Prompt:
    """The prompt of an issued group, made again from its index; that of a spawned group stands in its record."""
    if record.prompt is not None:
        return record.prompt
    split: Literal["train", "test"] = "test" if record.split == "test" else "train"
    is_drawn = record.purpose == "train"
    return msgspec.structs.replace(
        state.prompt(split, record.index),
        index=record.index,
        visit=record.visit,
        propensity=record.propensity,
        selector=state.cfg.stages[record.stage].prompts.name if is_drawn else "uniform",
    )


def _sampling(state: HubState, record: GroupRecord) -> Sampling:
    """How the rollouts of a group are drawn: with its own seed and temperature, the same when it is issued again."""
    cfg = state.cfg
    rollouts = cfg.evaluation.rollouts if record.purpose == "evaluate" else cfg.sampling.rollouts
    return Sampling(
        temperature=record.temperature or cfg.sampling.temperature,
        max_new_tokens=cfg.sampling.max_new_tokens,
        rollouts=rollouts,
        seed=((cfg.seed << 32) + record.group_id) * _MIX % 2**31,
    )


def _check_answer(state: HubState, record: GroupRecord, group: RolloutGroup) -> tuple[int, int]:
    """Oldest and newest version of rollouts that answer what was issued and can be trained on; else DataError."""
    issued = _job(state, record)
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
    # A version above the newest step would have a lag below 0: the journal knows no such weights. A hub without a model
    # directory has made-up workers, whose responses may be of any length.
    max_tokens = issued.sampling.max_new_tokens if state.vocabulary else 0
    return check_rollouts(group, state.vocabulary, state.step, max_tokens, state.max_turns)
