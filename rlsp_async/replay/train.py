"""The learner's post: manifests, batches, reports. Pure.

    selection -> Manifest (committed, one use charged) -> TrainJob -> StepReport -> groups finish -> weights announced

A manifest is written before its batch is sent: a learner that restarts from checkpoint v0 is sent the batches of v0+1,
v0+2 ... again. Only groups that the learner cannot train on are taken out of it, by a decision that is recorded, and
only while its step is not reported. Its credit of 2 allows the batch of step s+1 to be chosen while s trains.
"""

from __future__ import annotations

from rlsp_async.config import StageConfig
from rlsp_async.messages import Batch, Failed, Hello, Revoke, StepReport, TrainJob, VerifiedGroup, WeightsRef
from rlsp_async.replay.ledger import fresh, is_stale, returns
from rlsp_async.replay.metrics import status_figures, step_rows
from rlsp_async.replay.plan import Phase
from rlsp_async.replay.records import Amended, GroupRecord, Manifest, Published, Repeated, Stepped, without_groups
from rlsp_async.replay.selection.base import groups_above_keep, groups_to_carry, groups_to_evict
from rlsp_async.replay.state import HubState
from rlsp_async.replay.turn import Accepted, Early, Outcome, Turn
from rlsp_async.replay.verify import batch_chosen
from rlsp_async.replay.workers import Lease, Worker

REPEATS_THAT_MOVE = 3
"""How often the same step, trained again by restarted learners, counts as progress."""
CONTENT_TRIES = 2
"""How often the learner must refuse a batch for what is in it before the groups that it names are taken out."""
LEARNER = "learner"
"""Name of the counter: newest incarnation of the learner."""


# --- next job --------------------------------------------------------------------------------------------------------


def has_work(state: HubState) -> bool:
    """Always true: only `next_job` knows whether a batch can be chosen."""
    return True


def next_job(turn: Turn, worker: Worker) -> TrainJob | None:
    """The oldest batch that must be sent (again), else a new one; None when there is none yet."""
    training = turn.state.training
    manifest = training.next_to_send() or _choose(turn)
    if manifest is None:
        return None
    groups = _groups_of(turn.state, manifest)
    if groups is None:
        if training.want(manifest.step):
            turn.fetch(manifest.step)
        return None
    training.sent(manifest.step)
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
    """The groups of a batch as the learner gets them; None for a reported step that is not read from the journal
    yet."""
    if manifest.step <= state.step:
        return state.training.restored.get(manifest.step)
    ledger = state.ledger
    groups = [VerifiedGroup(group=ledger.bodies[i], verdicts=ledger.verdicts.get(i, [])) for i in manifest.groups]
    return state.policies.on_send(manifest, groups)


def _choose(turn: Turn) -> Manifest | None:
    """Writes the manifest of the next step, if enough groups are ready."""
    state, stage, phase = turn.state, turn.state.stage, turn.state.phase
    step = state.training.last_manifest + 1
    if stage is None or phase is None or step > phase.until:
        return None
    if len(state.ledger.ready) < stage.groups_per_step:
        return None
    ready = fresh(state.ledger.ready.values(), step, stage.max_lag)
    num_steps_left = state.plan.last_step[phase.stage] - state.training.last_manifest
    batch = state.selections[phase.stage].batch(ready, step, stage.groups_per_step, num_steps_left)
    if batch is None:
        _drop_stale(turn)
        _make_room(turn, stage, phase)
        return None
    if stage.max_lag == 0:  # the same batch in the same order, whichever group was verified first
        batch.sort(key=lambda selected: selected.record.group_id)
    batch_chosen(turn)
    chosen = [record for record, _ in batch]
    assert not any(is_stale(record, step, stage.max_lag) for record in chosen), (step, chosen)
    turn.record(*(state.ledger.take(record.group_id, step) for record in chosen))
    change = state.policies.on_batch(chosen, step, state.ledger)
    manifest = Manifest(
        step=step,
        stage=phase.stage,
        stage_step=state.plan.stage_step(phase.stage, step),
        groups=[record.group_id for record in chosen],
        last_of_stage=step == state.plan.last_step[phase.stage],
        oldest=[record.oldest for record in chosen],
        uses=[record.uses + 1 for record in chosen],
        propensities=[propensity for _, propensity in batch],
        replayed=change.replayed,
        incarnation=state.incarnation,
        at_s=turn.now,
    )
    turn.record(*change.before, manifest, *change.after)
    state.training.chose(manifest)
    return manifest


def _drop_stale(turn: Turn) -> None:
    """Drops ready groups that are too old for every step to come, so that their slots are free."""
    state = turn.state
    if state.stage is None:
        return
    step, max_lag = state.training.last_manifest + 1, state.stage.max_lag
    for group_id in [r.group_id for r in state.ledger.ready.values() if is_stale(r, step, max_lag)]:
        turn.drop(group_id, "stale")


def _make_room(turn: Turn, stage: StageConfig, phase: Phase) -> None:
    """When ready groups hold all slots and a batch needs new ones, used groups are retired to free their slots."""
    ledger = turn.state.ledger
    if len(ledger.ready) == ledger.alive == stage.capacity:
        cfg = turn.state.selections[phase.stage].cfg
        _retire(turn, groups_to_evict(cfg, ledger.ready.values(), stage.groups_per_step))


def _retire(turn: Turn, records: list[GroupRecord]) -> None:
    turn.record(*(turn.state.ledger.retire(record.group_id) for record in records))


# --- accept ----------------------------------------------------------------------------------------------------------


def accept(turn: Turn, report: StepReport) -> Outcome:
    """A step was trained. Its groups finish; weights that it published are announced with the same commit.

    Whether the speaker may report is checked by its connection. The report itself may be that of an older incarnation
    of the learner, from the checkpoint with which the newest one began.
    """
    training = turn.state.training
    if report.step > training.step + 1 and report.step in training.manifests:
        return Early()
    training.heard_report(report)
    if report.step <= training.step:
        _accept_repeat(turn, report)
    elif report.step in training.manifests:
        _close_step(turn, report)
    return Accepted()


def _close_step(turn: Turn, report: StepReport) -> None:
    """A step is reported for the first time."""
    state, training = turn.state, turn.state.training
    manifest = training.manifests[report.step]
    if (manifest.last_of_stage or report.step in state.plan.evaluated_steps) and report.weights is None:
        which = "its last step" if manifest.last_of_stage else "the step that is evaluated,"
        turn.fail_run(f"stage {manifest.stage}: the learner published no weights after {which} {report.step}")
        return
    rows = step_rows(state, manifest, report, turn.now)
    turn.write(*rows)
    state.pace.stepped(state.ledger.account["generated"], turn.now)
    state.pace.show(status_figures(rows[0].row))
    training.reports(report)
    state.retries.learner_succeeded()
    state.retries.content_settled(report.step)
    state.policies.on_reported(report.step)
    _finish_groups(turn, manifest)
    forget_to = training.forget()
    turn.record(Stepped(report=report, stage=manifest.stage, at_s=turn.now, forget_to=forget_to))
    if report.weights is not None:
        _publish(turn, report)
    turn.moved(f"step {report.step} was trained")


def _finish_groups(turn: Turn, manifest: Manifest) -> None:
    """The groups of a reported step become trained, or ready for a further use."""
    state, stage = turn.state, turn.state.plan.stages[manifest.stage]
    next_step = state.training.last_manifest + 1
    turn.record(
        *(state.ledger.finish(group_id, next_step, stage.max_lag, stage.max_uses) for group_id in manifest.groups)
    )
    if manifest.last_of_stage:
        _close_stage(turn, manifest.stage)
    else:
        _drop_stale(turn)
        _retire(turn, groups_above_keep(state.selections[manifest.stage].cfg, state.ledger.ready.values()))


def _publish(turn: Turn, report: StepReport) -> None:
    turn.state.training.publish(report)
    turn.announce()


def _accept_repeat(turn: Turn, report: StepReport) -> None:
    """A step that was reported before was trained again, by a learner that was restarted."""
    training = turn.state.training
    if training.reported.get(report.step) == report:
        return  # the same report once more, not a second training
    turn.record(Repeated(report=report, at_s=turn.now))
    if training.repeated(report.step) <= REPEATS_THAT_MOVE:
        turn.moved(f"step {report.step} was trained again")
    if may_replace(training.weights, report.weights):
        turn.record(Published(report=report))
        _publish(turn, report)


def may_replace(old: WeightsRef | None, new: WeightsRef | None) -> bool:
    """Whether weights that a restarted learner published again replace the published ones: they must be of the same
    version or a later one, and not of an older incarnation."""
    if old is None or new is None or old == new:
        return False
    return new.version >= old.version and new.incarnation >= old.incarnation


def may_republish(state: HubState) -> bool:
    """Whether the newest weights, or later ones, may still be published again: the learner is not back yet, or has to
    train those steps."""
    due = {*state.training.to_train, *state.table.leased_steps()}
    return state.table.learner() is None or any(state.version <= step <= state.step for step in due)


# --- the end of a stage ----------------------------------------------------------------------------------------------


def _close_stage(turn: Turn, ended: str) -> None:
    """Drops what is left when a stage ends, except the ready groups that the next stage carries over."""
    state = turn.state
    kept = _carried(state, ended)
    left = [r.group_id for r in state.ledger.records.values() if r.purpose == "train" and r.group_id not in kept]
    for group_id in left:
        turn.revoke("sample", group_id, "the stage has ended")
        turn.revoke("verify", group_id, "the stage has ended")
        turn.drop(group_id, "stage_end")
    turn.record(*state.policies.on_stage_end(ended))


def _carried(state: HubState, ended: str) -> set[int]:
    """Ready groups that the next stage takes over: it may train them by its own bounds on uses and lag."""
    name = state.plan.following(ended)
    if name is None or state.plan.stages[name].source != "rollouts":
        return set()
    stage, step = state.plan.stages[name], state.training.last_manifest + 1
    fit = [
        record
        for record in state.ledger.ready.values()
        if record.provenance == "rollout" and returns(record, step, stage.max_lag, stage.max_uses)
    ]
    return {record.group_id for record in groups_to_carry(state.selections[name].cfg, fit, stage.capacity)}


# --- a learner comes, or fails ---------------------------------------------------------------------------------------


def learner_came(turn: Turn, hello: Hello) -> None:
    """Queues the batches that a learner's weights lack, and those that it trained without reporting, which it
    answers."""
    state, training = turn.state, turn.state.training
    if LEARNER not in state.counters or hello.incarnation != state.counters[LEARNER]:
        turn.record(state.counters.set(LEARNER, hello.incarnation))  # an older incarnation is refused from now on
    training.learner_is_at(hello.step)
    if hello.step > training.last_manifest:
        turn.fail_run(
            f"{hello.worker} starts from step {hello.step}, but the journal knows no step after "
            f"{training.last_manifest}: they belong to different runs, or the journal lost its end"
        )
        return
    steps = range(_first_step(state, hello), training.last_manifest + 1)
    missing = [step for step in steps if step not in training.manifests]
    if missing:
        turn.fail_run(
            f"{hello.worker} starts from step {hello.step}, but the batch of step {missing[0]} is no "
            "longer in the journal: an older checkpoint than the kept ones was loaded"
        )
        return
    held = state.table.leased_steps()
    _close_unreported(turn, hello, held)
    steps = range(_first_step(state, hello), training.last_manifest + 1)
    training.send_again(step for step in steps if step not in held)


def _first_step(state: HubState, hello: Hello) -> int:
    """The first step that a learner is sent when it comes."""
    weights = state.training.weights
    if (
        weights is not None
        and weights.version <= hello.step <= state.step
        and (hello.step in state.training.manifests and hello.incarnation != weights.incarnation)
    ):
        return hello.step  # it answers from its checkpoint and publishes again: memory is empty after a reboot
    return min(max(hello.step, 0), state.step) + 1


def _close_unreported(turn: Turn, hello: Hello, held: set[int]) -> None:
    """Closes, without figures, the steps that are in a learner's weights and whose reports were lost with a process.

    The newest step in its weights is not among them: the learner can still report it. None of them ends a stage,
    because the batch after the end of a stage waits for its report.
    """
    for step in range(turn.state.step + 1, hello.step):
        if step in held or turn.state.ending.kind == "failed":
            return
        why = f"its report was lost; it is in the weights of step {hello.step}"
        turn.event("lease_lost", worker=hello.worker, key=step, detail=why)
        _close_step(turn, StepReport(step=step, incarnation=hello.incarnation))


def step_failed(turn: Turn, worker: Worker, lease: Lease, failed: Failed) -> None:
    """The learner could not train a step: it is sent again, and in order what was sent after it, unless the run
    fails."""
    state = turn.state
    state.ending.note(f"{worker.name} has not trained step {lease.key}: {failed.error}")
    guilty = _guilty(state, lease.key, failed)
    if guilty:
        if state.retries.content_failed(lease.key) >= CONTENT_TRIES:
            _quarantine(turn, lease.key, guilty, failed.error)
    elif failed.kind != "returned":
        state.retries.learner_failed()
    if (failed.kind == "data" and not guilty) or state.retries.train_failures > state.cfg.replay.retries:
        turn.fail_run(f"{worker.name} cannot train step {lease.key}: {failed.error}")
        return
    for later in [held for held in worker.leases.values() if held.key > lease.key]:
        state.table.release(later.lease)  # it must not be trained before the step that failed
        turn.send(worker.peer, Revoke(lease=later.lease, reason=f"step {lease.key} comes first"))
        turn.requeue(later.assignment)
    turn.requeue(lease.assignment)


def _guilty(state: HubState, step: int, failed: Failed) -> list[int]:
    """The groups that the learner names as the reason why it cannot train a step, as far as they are in its batch.

    A reported step is in the weights, so nothing is taken out of its batch.
    """
    manifest = state.training.manifests.get(step)
    if manifest is None or step <= state.step or failed.kind != "data":
        return []
    named = set(failed.groups)
    return [group_id for group_id in manifest.groups if group_id in named]


def _quarantine(turn: Turn, step: int, groups: list[int], why: str) -> None:
    """Takes groups out of a batch that is not reported, so that no batch can hold the run up for good.

    The decision is a record of its own (`Amended`); a learner that starts again is sent the new batch.
    """
    state = turn.state
    manifest = without_groups(state.training.manifests[step], groups)
    turn.record(*(state.ledger.quarantine(group_id, why) for group_id in groups))
    turn.record(*state.policies.on_quarantined(groups))
    turn.record(Amended(manifest=manifest, groups=groups, why=why, at_s=turn.now))
    state.training.amended(manifest)
    state.retries.content_settled(step)
    for group_id in groups:
        turn.event("quarantined", key=group_id, detail=f"taken out of the batch of step {step}: {why}")
    turn.moved(f"{len(groups)} groups were taken out of the batch of step {step}")
