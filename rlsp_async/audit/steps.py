"""The learner's history, and the files beside the journal.

G6     a step that is trained again from the same batch gives the same weights (on a CPU)
G7     no process writes after a newer one took its place
G9     a run that ended well has all its steps
G11    a checkpoint can be loaded or is not there
G13    the settings are those that the run began with
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec

from rlsp_async.audit.history import Finding, History, StepRow, Violations
from rlsp_async.config import sections_to_keep
from rlsp_async.files import sha256
from rlsp_async.messages import PROTOCOL

FREE = ("runs_dir", "replay", "sampler", "verifier", "learner")
"""Sections whose settings do not decide what is trained: they may be changed when a run is resumed."""


def check_steps(history: History) -> list[Finding]:
    """Checks G6, G7 and G9."""
    steps = history.steps()
    return [_repeats(history, steps), _fencing(history, steps), _progress(history, steps)]


def _repeats(history: History, steps: list[StepRow]) -> Finding:
    """G6. On a CPU a repeated step must give the same bits; on other devices differences are only counted."""
    found = Violations("G6", "a restarted learner makes the same weights again")
    for step in steps:
        weights = step.report.weights if step.report else None
        if step.report is None or (weights and step.digest and weights.digest != step.digest):
            found.add("its report cannot be decoded, or is about other weights", step=step.step)
    first = {step.step: (step.digest, step.report.metrics.get("loss") if step.report else None) for step in steps}
    repeats = history.rows("SELECT step, digest, loss, incarnation FROM repeats ORDER BY seq")
    compared = [row for row in repeats if row[0] in first and (row[1] or row[2] is not None)]
    differing = [(row[0], row[3]) for row in compared if _is_other(row[1], row[2], *first[row[0]])]
    devices = {row[0] for row in history.rows("SELECT DISTINCT detail FROM events WHERE kind = 'joined'")}
    on_cpu = history.cfg.learner.device == "cpu" or "learner on cpu" in devices
    for step, incarnation in differing if on_cpu else ():
        found.add("other weights than the first time", step=step, learner=incarnation)
    figures = (
        f"{len(repeats):,} steps were reported again, {len(compared):,} can be compared, "
        f"{len(differing):,} have other bits"
    )
    return found.finding(figures, applies=bool(repeats))


def _is_other(digest: str, loss: float | None, first_digest: str, first_loss: float | None) -> bool:
    """Whether the second result differs from the first.

    A value that one of them lacks is not compared, nor are digests of two kinds: sums where the weights lay in shared
    memory, SHA-256 of the file where they lay on a disk.
    """
    kinds = digest.partition(":")[0], first_digest.partition(":")[0]
    other_weights = bool(digest and first_digest) and kinds[0] == kinds[1] and digest != first_digest
    return other_weights or (loss is not None and first_loss is not None and loss != first_loss)


def _fencing(history: History, steps: list[StepRow]) -> Finding:
    """G7. After a newer start of the learner (or of the hub) has written, an older one never writes."""
    found = Violations("G7", "no process writes after a newer one took its place")
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
    """G9. A finished run has all its steps; the figure is the longest time between two steps.

    Times follow the wall clock, which may be set back between two starts of the hub, so they violate nothing.
    """
    found = Violations("G9", "the run moves on")
    ended = history.rows("SELECT 1 FROM events WHERE kind = 'finished'")
    planned = sum(stage.steps for stage in history.cfg.stages.values())
    if ended and len(steps) != planned:
        found.add(f"it was reported as finished after {len(steps):,} of {planned:,} steps")
    times = [step.at_s for step in steps]
    gaps = sorted(abs(after - before) for before, after in pairwise(times))
    longest = (
        f"; between two steps {gaps[len(gaps) // 2]:.2f} s in the median, at most {gaps[-1]:.1f} s" if gaps else ""
    )
    return found.finding(f"{len(steps):,} of {planned:,} steps{longest}")


# --- files -----------------------------------------------------------------------------------------------------------


def check_files(history: History) -> list[Finding]:
    """Checks G11 and G13. They do not apply to a journal that was copied away from its run."""
    return [_checkpoints(history), _settings(history)]


def _checkpoints(history: History) -> Finding:
    found = Violations("G11", "a checkpoint can be loaded or is not there")
    directory = history.directory / "checkpoints"
    places = sorted(directory.glob("step-*")) if directory.is_dir() else []
    good = [place for place in places if _is_whole(place, found)]
    [(newest,)] = history.rows("SELECT max(checkpoint) FROM steps")
    if directory.is_dir() and newest and not good:
        found.add(f"step {newest} was reported as saved, and no checkpoint can be loaded", path=str(directory))
    return found.finding(f"{len(good)} of {len(places)} match their digests", applies=bool(places) or bool(newest))


def _is_whole(place: Path, found: Violations) -> bool:
    """Whether every file has the digest that DONE names."""
    try:
        digests: dict[str, str] = json.loads((place / "DONE").read_text(encoding="utf-8"))
        wrong = [name for name, digest in digests.items() if _digest(place / name) != digest]
    except (OSError, ValueError, AttributeError) as e:
        found.add(f"DONE cannot be read: {e}", path=str(place))
        return False
    for name in wrong:
        found.add(f"{name} does not have the digest that was written", path=str(place))
    return not wrong


def _digest(path: Path) -> str:
    return sha256(path) if path.is_file() else "missing"


def _settings(history: History) -> Finding:
    """G13. The settings in the journal are unchanged; config.toml agrees with them in all that decides the weights."""
    found = Violations("G13", "the settings are those that the run began with")
    table: dict[str, Any] = msgspec.to_builtins(history.cfg)
    for name, value in sections_to_keep(history.cfg).items():
        stored = history.run.get(f"config.{name}")
        if name not in FREE and stored != hashlib.sha256(msgspec.json.encode(value, order="sorted")).hexdigest():
            found.add(f"[{name}] in the journal was changed", path=str(history.path))
    if history.run.get("protocol") != str(PROTOCOL):
        found.add(f"protocol {history.run.get('protocol')}, this version speaks {PROTOCOL}", path=str(history.path))
    path = history.directory / "config.toml"
    if path.is_file():
        beside = _table(path, found)
        for name in [name for name in beside if name not in FREE and _differs(beside[name], table.get(name))]:
            found.add(f"[{name}] in config.toml is not what the run began with", path=str(path))
    return found.finding(
        f"protocol {history.run.get('protocol')}, schema {history.run.get('schema')}"
        + ("" if path.is_file() else "; there is no config.toml beside it")
    )


def _table(path: Path, found: Violations) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as e:
        found.add(f"it is no valid TOML: {e}", path=str(path))
        return {}


def _differs(beside: Any, then: Any) -> bool:
    """Whether a value in the file differs from the journal's. Values that the file leaves out are defaults."""
    if isinstance(beside, dict) and isinstance(then, dict):
        return any(_differs(value, then.get(key)) for key, value in beside.items())
    if isinstance(beside, list) and isinstance(then, list | tuple):
        return list(beside) != list(then)
    return bool(beside != then)
