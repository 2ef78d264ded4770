"""Learner work: manifests, batches, reports. Pure.

    select -> Manifest (committed, uses + 1) -> TrainJob -> StepReport -> groups finish -> new weights announced

A manifest is never changed: a learner that restarts from checkpoint v0 is sent the batches of v0+1, v0+2 .. again.
Its credit of 2 lets the batch of step s+1 be chosen while s trains.
"""

from __future__ import annotations

from rlsp_async.messages import Batch, Hello, StepReport, TrainJob, VerifiedGroup, WeightsRef
from rlsp_async.replay.ledger import fresh, is_stale, returns
from rlsp_async.replay.lines import step_lines
from rlsp_async.replay.outcomes import found_signal
from rlsp_async.replay.records import Cursor, Event, Manifest, Published, Repeated, Stepped
from rlsp_async.replay.selection.base import groups_above_keep, groups_to_carry, groups_to_evict
from rlsp_async.replay.setbacks import drop, fail_run, void
from rlsp_async.replay.state import Effects, HubState
from rlsp_async.replay.success.mend import mend, remember, with_successes

REPEATS_THAT_MOVE = 3
"""How often the same step, trained again by restarted learners, counts as progress."""


def next_train_job(state: HubState, out: Effects, now: float) -> TrainJob | None:
    """The oldest batch that must be sent (again), else a new one; None when there is none yet."""
    while state.to_train and state.to_train[0] not in state.manifests:
        state.to_train.popleft()  # asked for again only for its weights, and newer ones are out meanwhile
    if not state.to_train and not _choose(state, out, now):
        return None
    manifest = state.manifests[state.to_train[0]]
    groups = _groups_of(state, manifest)
    if groups is None:
        if manifest.step not in state.wanted:
            state.wanted.add(manifest.step)
            out.wants.append(manifest.step)
        return None
    state.to_train.popleft()
    return TrainJob(
        batch=Batch(
            stage=manifest.stage,
            step=manifest.step,
            groups=groups,
            last_of_stage=manifest.last_of_stage,
            stage_step=manifest.stage_step,
        )
    )


def _groups_of(state: HubState, manifest: Manifest) -> list[VerifiedGroup] | None:
    if manifest.step <= state.step:  # reported long ago: the bodies are in the journal only
        return state.restored.get(manifest.step)
    ledger = state.ledger
    groups = [VerifiedGroup(group=ledger.bodies[i], verdicts=ledger.verdicts.get(i, [])) for i in manifest.groups]
    return with_successes(state, manifest, groups)


def _choose(state: HubState, out: Effects, now: float) -> bool:
    """Writes the manifest of the next step, if enough groups are ready."""
    stage, phase, step = state.stage, state.phase, state.last_manifest + 1
    if stage is None or phase is None or step > state.plan.last_step[phase.stage]:
        return False
    if len(state.ledger.ready) < stage.groups_per_step:
        return False
    ready = fresh(state.ledger.ready.values(), step, stage.max_lag)
    num_steps_left = state.plan.last_step[phase.stage] - state.last_manifest
    batch = state.choices[phase.stage].batch(ready, step, stage.groups_per_step, num_steps_left)
    if batch is None:
        sweep(state, out, now)
        _make_room(state, out)
        return False
    found_signal(state, out)
    chosen = [head for head, _ in batch]
    ids = [head.group_id for head in chosen]
    assert not any(is_stale(head, step, stage.max_lag) for head in chosen), (step, chosen)
    out.records.extend(state.ledger.take(group_id, step) for group_id in ids)
    manifest = Manifest(
        step=step,
        stage=phase.stage,
        stage_step=state.plan.stage_step(phase.stage, step),
        groups=ids,
        last_of_stage=step == state.plan.last_step[phase.stage],
        oldest=[h.oldest for h in chosen],
        uses=[h.uses + 1 for h in chosen],
        propensities=[propensity for _, propensity in batch],
        replayed=mend(state, out, chosen, step),
        incarnation=state.incarnation,
        at_s=now,
    )
    out.records.append(manifest)
    remember(state, out, chosen, step)
    state.manifests[step] = manifest
    state.last_manifest = step
    state.to_train.append(step)
    return True


def sweep(state: HubState, out: Effects, now: float) -> None:
    """Removal: ready groups that are too old for every step to come are dropped, and their slots are free."""
    if state.stage is None:
        return
    step = state.last_manifest + 1
    old = [head.group_id for head in state.ledger.ready.values() if is_stale(head, step, state.stage.max_lag)]
    for group_id in old:
        drop(state, out, group_id, "stale", now)


def _make_room(state: HubState, out: Effects) -> None:
    """All slots are held by ready groups, and a batch needs new ones: used ones go, and their slots are free."""
    stage, phase, ledger = state.stage, state.phase, state.ledger
    if stage is not None and phase is not None and len(ledger.ready) == ledger.alive == stage.capacity:
        choice = state.choices[phase.stage]
        old = groups_to_evict(choice.cfg, ledger.ready.values(), stage.groups_per_step)
        out.records.extend(ledger.retire(head.group_id) for head in old)


def accept_report(state: HubState, out: Effects, report: StepReport, now: float) -> bool:
    """A step was trained. Its groups finish; if it was published, its weights are announced with the same commit.

    False: it overtook the report before it and must come again. Who speaks is checked where the connection is: a report
    itself may be of an older start, out of the checkpoint that the newest start began from.
    """
    if report.step > state.step + 1 and report.step in state.manifests:
        return False
    state.learner_step = max(state.learner_step, report.step)
    state.restored.pop(report.step, None)
    if report.step in state.to_train:
        state.to_train.remove(report.step)
    _remember_checkpoint(state, report)
    if report.step <= state.step:
        _accept_repeat(state, out, report, now)
    elif report.step in state.manifests:
        _close_step(state, out, report, now)
    return True


def _close_step(state: HubState, out: Effects, report: StepReport, now: float) -> None:
    manifest = state.manifests[report.step]
    if manifest.last_of_stage and report.weights is None:
        fail_run(
            state,
            out,
            f"stage {manifest.stage}: the learner published no weights after its last step {report.step}",
            now,
        )
        return
    stage = state.plan.stages[manifest.stage]
    out.lines.extend(step_lines(state, manifest, report, now))
    state.step, state.train_failures = report.step, 0
    state.memory.forget(state.step)
    state.reported[report.step] = report
    for group_id in manifest.groups:
        out.records.append(state.ledger.finish(group_id, state.last_manifest + 1, stage.max_lag, stage.max_uses))
    if manifest.last_of_stage:
        _close_stage(state, out, manifest.stage, now)
    else:
        sweep(state, out, now)
        extra = groups_above_keep(state.choices[manifest.stage].cfg, state.ledger.ready.values())
        out.records.extend(state.ledger.retire(head.group_id) for head in extra)
    out.records.append(Stepped(report=report, stage=manifest.stage, at_s=now, forget_to=_forget(state)))
    if report.weights is not None:
        state.published = report
        state.announce(out, now)
    state.moved(f"step {report.step} was trained", now)


def _accept_repeat(state: HubState, out: Effects, report: StepReport, now: float) -> None:
    """A step that had been reported before. A restarted learner has written its weights anew: they replace the old."""
    if report == state.reported.get(report.step):
        return  # said twice: its Ack was lost, or a checkpoint remembers it
    out.records.append(Repeated(report=report, at_s=now))
    state.repeats[report.step] += 1
    if state.repeats[report.step] <= REPEATS_THAT_MOVE:
        state.moved(f"step {report.step} was trained again", now)
    if may_replace(state.weights, report.weights):
        state.published = report
        out.records.append(Published(report=report))
        state.announce(out, now)


def may_replace(old: WeightsRef | None, new: WeightsRef | None) -> bool:
    """Weights of the newest version or a later one, made again, replace those that are published, unless their learner
    is older."""
    if old is None or new is None or old == new:
        return False
    return new.version >= old.version and new.incarnation >= old.incarnation


def may_come_again(state: HubState) -> bool:
    """Whether the newest weights, or later ones, may still be published anew: the learner is not back yet, or is asked
    for them."""
    asked = {*state.to_train, *(lease.key for lease in state.crew.leases.values() if lease.kind == "train")}
    return state.crew.learner() is None or any(state.version <= step <= state.step for step in asked)


def _remember_checkpoint(state: HubState, report: StepReport) -> None:
    if report.checkpoint not in state.checkpoints:
        state.checkpoints = sorted({*state.checkpoints, report.checkpoint})[-state.cfg.learner.keep_checkpoints :]


def _forget(state: HubState) -> int:
    """No kept checkpoint needs what was trained at this step or before: the oldest kept one, if all are known."""
    known = len(state.checkpoints) >= state.cfg.learner.keep_checkpoints
    forget_to = min(state.checkpoints[0] if known else 0, state.step)
    for step in [step for step in state.manifests if step <= forget_to]:
        del state.manifests[step]
    for step in [step for step in state.reported if step <= forget_to and step < state.step]:
        del state.reported[step]
        state.repeats.pop(step, None)
    return forget_to


def _close_stage(state: HubState, out: Effects, ended: str, now: float) -> None:
    """What is left over when a stage ends is dropped, but for the ready groups that the next one carries over into its
    own slots."""
    kept = _carried(state, ended)
    left = [h.group_id for h in state.ledger.heads.values() if h.purpose == "train" and h.group_id not in kept]
    for group_id in left:
        void(state, out, "sample", group_id, "the stage has ended")
        void(state, out, "verify", group_id, "the stage has ended")
        drop(state, out, group_id, "stage_end", now)
    out.records.extend(state.memory.end(ended))


def _carried(state: HubState, ended: str) -> set[int]:
    """Ready groups that the next stage may train, by its own bounds on uses and lag, and takes over."""
    name = state.plan.following(ended)
    if name is None or state.plan.stages[name].source != "rollouts":
        return set()
    stage, step = state.plan.stages[name], state.last_manifest + 1
    fit = [
        head
        for head in state.ledger.ready.values()
        if head.provenance == "rollout" and returns(head, step, stage.max_lag, stage.max_uses)
    ]
    return {head.group_id for head in groups_to_carry(state.choices[name].cfg, fit, stage.capacity)}


def _close_unreported(state: HubState, out: Effects, hello: Hello, held: set[int], now: float) -> None:
    """Steps that are in its weights, below the newest (which it can still report), and whose reports were lost with a
    process: they are closed without figures. None of them ends a stage: the batch after that waits for its report."""
    for step in range(state.step + 1, hello.step):
        if step in held or state.ending == "failed":
            return
        why = f"its report was lost; it is in the weights of step {hello.step}"
        out.records.append(Event(kind="lease_lost", at_s=now, worker=hello.worker, key=step, detail=why))
        _close_step(state, out, StepReport(step=step, incarnation=hello.incarnation), now)


def _first_step(state: HubState, hello: Hello) -> int:
    """The first step that a learner is sent when it comes."""
    if (
        state.weights is not None
        and state.weights.version <= hello.step <= state.step
        and (hello.step in state.manifests and hello.incarnation != state.weights.incarnation)
    ):
        return hello.step  # it answers from its checkpoint and publishes again: memory is empty after a reboot
    return min(max(hello.step, 0), state.step) + 1


def learner_came(state: HubState, out: Effects, hello: Hello, now: float) -> None:
    """Queues the batches that its weights lack, and those that it has trained but not reported (it answers them)."""
    if hello.incarnation != state.cursors.get("learner", -1):
        state.cursors["learner"] = hello.incarnation  # an older start is refused from now on
        out.records.append(Cursor(name="learner", value=hello.incarnation))
    state.learner_step = hello.step
    start = _first_step(state, hello)
    if hello.step > state.last_manifest:
        fail_run(
            state,
            out,
            f"{hello.worker} starts from step {hello.step}, but the journal knows no step after "
            f"{state.last_manifest}: they belong to different runs, or the journal lost its end",
            now,
        )
        return
    missing = [step for step in range(start, state.last_manifest + 1) if step not in state.manifests]
    if missing:
        fail_run(
            state,
            out,
            f"{hello.worker} starts from step {hello.step}, but the batch of step {missing[0]} is no "
            "longer in the journal: an older checkpoint than the kept ones was loaded",
            now,
        )
        return
    held = {lease.key for lease in state.crew.leases.values() if lease.kind == "train"}
    _close_unreported(state, out, hello, held, now)
    start = _first_step(state, hello)
    state.to_train.clear()
    state.to_train.extend(step for step in range(start, state.last_manifest + 1) if step not in held)
    state.wanted.clear()
    for step in state.restored.keys() - set(state.to_train):
        del state.restored[step]  # it starts later than the learner before it
