"""Checks of the learner's history: G6 the same batch makes the same weights again, G7 no zombie, G9 progress."""

from __future__ import annotations

from itertools import pairwise

from rlsp_async.audit.finding import Finding, Offences
from rlsp_async.audit.history import History, StepRow


def check_steps(history: History) -> list[Finding]:
    """The three guarantees."""
    steps = history.steps()
    return [_repeats(history, steps), _fencing(history, steps), _progress(history, steps)]


def _repeats(history: History, steps: list[StepRow]) -> Finding:
    """G6. On a CPU a step that was trained again must give the same bits; elsewhere a difference is said."""
    found = Offences("G6", "a restarted learner makes the same weights again")
    for step in steps:
        weights = step.report.weights if step.report else None
        if step.report is None or (weights and step.digest and weights.digest != step.digest):
            found.add("its report cannot be decoded, or tells of other weights", step=step.step)
    first = {step.step: (step.digest, step.report.metrics.get("loss") if step.report else None) for step in steps}
    repeats = history.rows("SELECT step, digest, loss, incarnation FROM repeats ORDER BY seq")
    compared = [row for row in repeats if row[0] in first and (row[1] or row[2] is not None)]
    differing = [(row[0], row[3]) for row in compared if _differs(row[1], row[2], *first[row[0]])]
    devices = {row[0] for row in history.rows("SELECT DISTINCT detail FROM events WHERE kind = 'joined'")}
    on_cpu = history.cfg.learner.device == "cpu" or "learner on cpu" in devices
    for step, incarnation in differing if on_cpu else ():
        found.add("other weights than the first time", step=step, learner=incarnation)
    figures = (
        f"{len(repeats):,} steps were reported again, {len(compared):,} can be compared, "
        f"{len(differing):,} have other bits"
    )
    return found.finding(figures, applies=bool(repeats))


def _differs(digest: str, loss: float | None, first_digest: str, first_loss: float | None) -> bool:
    """Whether the second time was not the first; what one of them does not tell is not compared."""
    other_weights = bool(digest and first_digest) and digest != first_digest
    return other_weights or (loss is not None and first_loss is not None and loss != first_loss)


def _fencing(history: History, steps: list[StepRow]) -> Finding:
    """G7. Once a newer start of the learner (or the hub) has written, an older one never does."""
    found = Offences("G7", "no process writes after a newer one took its place")
    newest = 0
    for step in steps:
        if step.incarnation < newest:
            found.add(f"reported by learner {step.incarnation} after {newest}", step=step.step)
        newest = max(newest, step.incarnation)
    newest = 0
    for number, incarnation in history.rows("SELECT step, incarnation FROM manifests ORDER BY step"):
        if incarnation < newest:
            found.add(f"chosen by hub {incarnation} after {newest}", step=number)
        newest = max(newest, incarnation)
    starts = len({step.incarnation for step in steps})
    [(refused,)] = history.rows("SELECT count(*) FROM events WHERE kind = 'fenced'")
    return found.finding(
        f"{history.run['incarnation']} starts of the hub, steps by {starts} starts of the learner, "
        f"{refused:,} late writes refused",
        applies=bool(steps),
    )


def _progress(history: History, steps: list[StepRow]) -> Finding:
    """G9: a run that ended well has all its steps; a figure: the longest time between two steps. Times are the wall
    clock's, which may have been set back between two starts of the hub: they violate nothing."""
    found = Offences("G9", "the run moves on")
    ended = history.rows("SELECT 1 FROM events WHERE kind = 'finished'")
    planned = sum(stage.steps for stage in history.cfg.stages.values())
    if ended and len(steps) != planned:
        found.add(f"it is said to be finished after {len(steps):,} of {planned:,} steps")
    times = [step.at_s for step in steps]
    gaps = sorted(abs(after - before) for before, after in pairwise(times))
    longest = f"; between two steps {gaps[len(gaps) // 2]:.2f} s as a rule, at most {gaps[-1]:.1f} s" if gaps else ""
    return found.finding(f"{len(steps):,} of {planned:,} steps{longest}")
