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
    first = {step.step: step.digest for step in steps}
    repeats = history.rows("SELECT step, digest, incarnation FROM repeats ORDER BY seq")
    compared = [(step, digest, incarnation) for step, digest, incarnation in repeats if digest and first.get(step)]
    differing = [(step, incarnation) for step, digest, incarnation in compared if digest != first[step]]
    devices = {row[0] for row in history.rows("SELECT DISTINCT detail FROM events WHERE kind = 'joined'")}
    on_cpu = history.cfg.learner.device == "cpu" or "learner on cpu" in devices
    for step, incarnation in differing if on_cpu else ():
        found.add("other weights than the first time", step=step, learner=incarnation)
    figures = (f"{len(repeats):,} steps were reported again, {len(compared):,} with weights, "
               f"{len(differing):,} with other bits")
    return found.finding(figures, applies=bool(repeats))


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
    return found.finding(f"{history.run['incarnation']} starts of the hub, steps by {starts} starts of the learner, "
                         f"{refused:,} late writes refused", applies=bool(steps))


def _progress(history: History, steps: list[StepRow]) -> Finding:
    """G9, a figure: the longest time between two steps, whatever was killed meanwhile."""
    found = Offences("G9", "the run moves on")
    times = [step.at_s for step in steps]
    for before, after in pairwise(steps):
        if after.at_s < before.at_s:
            found.add(f"reported at {after.at_s:.1f} s, the step before at {before.at_s:.1f} s", step=after.step)
    gaps = sorted(after - before for before, after in pairwise(times))
    longest = f"; between two steps {gaps[len(gaps) // 2]:.2f} s as a rule, at most {gaps[-1]:.1f} s" if gaps else ""
    total = sum(stage.steps for stage in history.cfg.stages.values())
    return found.finding(f"{len(steps):,} of {total:,} steps{longest}")
