"""The plan of a run, [evaluate before] -> train -> [evaluate after] for each stage, and how far its training is. Pure.

With `evaluation.every` = n the training of a stage is cut after every n of its steps, and an evaluation stands at each
cut: nothing is chosen for training until the evaluation of the version of that step is complete.

Steps are counted through all stages: with stages of 1000 and 24 steps the second stage trains steps 1001..1024. The
current phase follows from two facts, the newest reported step and the finished evaluations, so that a restart needs
nothing else.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator
from itertools import pairwise
from typing import Literal, NamedTuple

from rlsp_async.config import RunConfig, StageConfig
from rlsp_async.messages import StepReport, VerifiedGroup, WeightsRef
from rlsp_async.replay.records import JournalContent, Manifest


class Phase(NamedTuple):
    """What the run does now. Example: Phase("evaluate", "rlsp", "before rlsp")."""

    kind: Literal["train", "evaluate"]
    stage: str
    key: str = ""
    """Name of the evaluation; empty when training."""
    until: int = 0
    """When training: the step of the run at which this phase ends."""


class Plan:
    """The phases in order, and the steps of each stage."""

    def __init__(self, cfg: RunConfig) -> None:
        self.stages: dict[str, StageConfig] = cfg.stages
        self.first_step: dict[str, int] = {}
        self.last_step: dict[str, int] = {}
        step = 0
        for name, stage in cfg.stages.items():
            self.first_step[name], self.last_step[name] = step + 1, step + stage.steps
            step += stage.steps
        self.phases = list(self._phases(cfg))
        self.evaluated_steps = {
            phase.until for phase, following in pairwise(self.phases) if phase.kind == "train" and following.key
        }
        """Steps after which an evaluation stands."""

    def at(self, step: int, evaluated: Collection[str]) -> Phase | None:
        """The first phase that is not complete; None when the run is.

        `step` is the newest reported step, `evaluated` the keys of the finished evaluations.
        """
        for phase in self.phases:
            done = step >= phase.until if phase.kind == "train" else phase.key in evaluated
            if not done:
                return phase
        return None

    def following(self, stage: str) -> str | None:
        """The stage after this one; None after the last."""
        names = list(self.stages)
        return next(iter(names[names.index(stage) + 1 :]), None)

    def stage_step(self, stage: str, step: int) -> int:
        """The step counted within its stage, from 1."""
        return step - self.first_step[stage] + 1

    def _phases(self, cfg: RunConfig) -> Iterator[Phase]:
        for name, stage in cfg.stages.items():
            if cfg.evaluation.prompts and name in cfg.evaluation.before:
                yield Phase("evaluate", name, f"before {name}")
            for stage_step in cfg.evaluation.steps_of(name, stage):
                yield Phase("train", name, until=self.first_step[name] + stage_step - 1)
                yield Phase("evaluate", name, f"during {name} {stage_step}")
            yield Phase("train", name, until=self.last_step[name])
            if cfg.evaluation.prompts and name in cfg.evaluation.after:
                yield Phase("evaluate", name, f"after {name}")


class Training:
    """Which steps were chosen, sent and reported, and what was published. Changed by `train.py` and `Turn.requeue`."""

    def __init__(self, content: JournalContent, keep_checkpoints: int) -> None:
        self._keep_checkpoints = keep_checkpoints
        self.step = content.reports[-1].step if content.reports else 0
        """Newest reported step."""
        self.reported: dict[int, StepReport] = {report.step: report for report in content.reports}
        """First reports of steps that a restarted learner may train again, as far as they are remembered."""
        self.manifests: dict[int, Manifest] = {manifest.step: manifest for manifest in content.manifests}
        self.last_manifest = max(self.manifests, default=self.step)
        """Newest step whose batch was chosen."""
        self.to_train: deque[int] = deque()
        """Steps whose manifest is written and whose batch must be sent to the learner, in order."""
        self.wanted: set[int] = set()
        """Reported steps whose batches the shell is reading from the journal."""
        self.restored: dict[int, list[VerifiedGroup]] = {}
        """Batches of reported steps, read from the journal for a learner that was restarted."""
        self.learner_step = 0
        """Newest step in the learner's weights, as far as it has said."""
        self.repeats: Counter[int] = Counter()
        """For each step, how often a restarted learner has trained it again."""
        self.checkpoints: list[int] = sorted({report.checkpoint for report in content.reports})[-keep_checkpoints:]
        """Newest checkpoints of the learner, as many as are kept."""
        self.weights: WeightsRef | None = content.published.weights if content.published else None
        """The newest published weights; None while samplers serve the initial model, version 0."""
        self.version = self.weights.version if self.weights else 0
        """Newest published version."""

    # --- sending batches -----------------------------------------------------------------------------------------

    def next_to_send(self) -> Manifest | None:
        """The manifest that must be sent next. A step that was forgotten meanwhile was only asked for again for its
        weights, and newer ones are published: it is skipped."""
        while self.to_train and self.to_train[0] not in self.manifests:
            self.to_train.popleft()
        return self.manifests[self.to_train[0]] if self.to_train else None

    def chose(self, manifest: Manifest) -> None:
        """The batch of the next step was chosen."""
        self.manifests[manifest.step] = manifest
        self.last_manifest = manifest.step
        self.to_train.append(manifest.step)

    def amended(self, manifest: Manifest) -> None:
        """Groups were taken out of a batch whose step is not reported."""
        self.manifests[manifest.step] = manifest

    def sent(self, step: int) -> None:
        """The first batch of `to_train` was sent."""
        assert self.to_train[0] == step, (step, self.to_train)
        self.to_train.popleft()

    def want(self, step: int) -> bool:
        """The batch of a reported step must be read from the journal; False when it is being read already."""
        is_new = step not in self.wanted
        self.wanted.add(step)
        return is_new

    def restore(self, step: int, groups: list[VerifiedGroup]) -> None:
        """The batch of a reported step was read; it is not kept when its learner was replaced meanwhile."""
        self.wanted.discard(step)
        if step in self.to_train:
            self.restored[step] = groups

    def requeue(self, step: int, held: Collection[int]) -> None:
        """A lease of the learner has ended without a report: its step is sent again, and in order what was sent later.

        A reported step is not sent again when the learner has left it behind (it can answer only its newest ones), or
        when no kept checkpoint needs it: it would be refused for ever, and hold up the steps after it. `held`: steps
        that the learner holds.
        """
        steps = {step, *self.to_train} - set(held)
        self.to_train.clear()
        self.to_train.extend(
            sorted(step for step in steps if step in self.manifests and (step > self.step or step >= self.learner_step))
        )

    def learner_is_at(self, step: int) -> None:
        """A learner came whose weights are those of `step`."""
        self.learner_step = step

    def send_again(self, steps: Iterable[int]) -> None:
        """A learner came: exactly these steps must be sent to it."""
        self.to_train.clear()
        self.to_train.extend(steps)
        self.wanted.clear()
        for step in self.restored.keys() - set(self.to_train):
            del self.restored[step]  # the new learner starts later than the one before it

    # --- reports -------------------------------------------------------------------------------------------------

    def heard_report(self, report: StepReport) -> None:
        """A report came, for the first time or again."""
        self.learner_step = max(self.learner_step, report.step)
        self.restored.pop(report.step, None)
        if report.step in self.to_train:
            self.to_train.remove(report.step)
        if report.checkpoint not in self.checkpoints:
            self.checkpoints = sorted({*self.checkpoints, report.checkpoint})[-self._keep_checkpoints :]

    def reports(self, report: StepReport) -> None:
        """The next step was reported for the first time."""
        self.step = report.step
        self.reported[report.step] = report

    def repeated(self, step: int) -> int:
        """A restarted learner trained a step again; returns how often."""
        self.repeats[step] += 1
        return self.repeats[step]

    def publish(self, report: StepReport) -> None:
        """The weights of a report are the newest ones."""
        assert report.weights is not None, report
        self.weights, self.version = report.weights, report.weights.version

    def forget(self) -> int:
        """Forgets the steps that no kept checkpoint needs: up to the oldest kept one, once all kept ones are known.

        Returns the newest step that was forgotten, 0 when there is none.
        """
        known = len(self.checkpoints) >= self._keep_checkpoints
        forget_to = min(self.checkpoints[0] if known else 0, self.step)
        for step in [step for step in self.manifests if step <= forget_to]:
            del self.manifests[step]
        for step in [step for step in self.reported if step <= forget_to and step < self.step]:
            del self.reported[step]
            self.repeats.pop(step, None)
        return forget_to


def needs_sampler(cfg: RunConfig) -> bool:
    """Whether anything of a run is sampled: a stage that trains on rollouts, or an evaluation."""
    phases = Plan(cfg).phases
    return any(phase.kind == "evaluate" or cfg.stages[phase.stage].source == "rollouts" for phase in phases)
