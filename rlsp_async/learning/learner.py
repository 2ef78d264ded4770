"""The learner: batches in, step reports and weights out. Blocking; the service runs it in a thread of its own.

    TrainJob(step s) -> rows -> rewards -> updates -> publish (every so often) -> checkpoint (every so often) -> report

Promises: step s is trained once, on the weights of step s - 1 (the first of a stage that starts from the base: on
those); a repeat of s is answered from memory or checkpoint;
from one checkpoint and the same batches a CPU makes the same bits. The newest complete checkpoint is where a restart
begins, and the hub sends the steps after it again.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

import msgspec
import structlog
import torch

from rlsp_async.config import RunConfig, decides_the_weights
from rlsp_async.config.flatten import settings
from rlsp_async.errors import ConfigError, MachineError, MessageError
from rlsp_async.learning import checkpoint, publish, reward, rows, stage, update
from rlsp_async.learning.export import export_hf
from rlsp_async.learning.owner import Owner
from rlsp_async.learning.policy import Policy, load_model
from rlsp_async.messages import Batch, StepReport, TrainJob, WeightsRef

REPORTS_KEPT = 4
"""More than the steps that a learner can have trained and not yet reported (its credit)."""

log = structlog.get_logger()


class Learner:
    """Trains a run. `publisher` None: weights go to `rlsp_async.weights`."""

    def __init__(
        self,
        cfg: RunConfig,
        model_dir: Path,
        run_dir: Path,
        publisher: publish.Publisher | None = None,
        incarnation: int = 0,
    ) -> None:
        torch.set_num_threads(cfg.learner.threads)
        self.cfg, self.model_dir, self.run_dir = cfg, model_dir, run_dir
        self._owner = Owner(run_dir / "checkpoints", incarnation)
        self._owner.claim()
        self._owner.sweep([run_dir / "checkpoints", run_dir / "stages", run_dir])
        self.incarnation, self.device = self._owner.incarnation, _device(cfg.learner.device)
        self.policy = Policy(load_model(model_dir, cfg.model.dtype, self.device, cfg.learner.gradient_checkpointing))
        num_bytes = sum(p.numel() * p.element_size() for _, p in self.policy.policy_parameters())
        self._publisher = publisher or publish.StorePublisher(cfg, num_bytes, self.incarnation)
        self._step, self._checkpoint = 0, 0
        self._stage: stage.StageState | None = None
        self._reports: dict[int, StepReport] = {}
        """Of the newest steps: a hub that was killed may not have heard them, and asks again."""
        self._republish = False
        self._training, self._whole = threading.Lock(), True
        self._busy = {"steps": 0.0, "tokens": 0.0, "seconds": 0.0}
        self._restore()

    @property
    def step(self) -> int:
        """Newest step in the weights; 0 before the first."""
        return self._step

    def train(self, job: TrainJob) -> StepReport:
        """Trains the next step, or answers a repeat of one of the last REPORTS_KEPT.

        Raises MessageError when the step is neither, DivergedError when loss or gradient is not finite.
        """
        with self._training:
            if job.batch.step in self._reports:
                return self._repeat(job.batch.step)
            if job.batch.step != self._step + 1:
                raise MessageError(f"step {job.batch.step} cannot follow step {self._step} of these weights")
            self._whole = False
            report = self._next(job.batch)
            self._whole = True
            return report

    def _next(self, batch: Batch) -> StepReport:
        begun_s = time.monotonic()
        if self._stage is None or self._stage.name != batch.stage:
            self._stage = stage.begin(self.cfg, batch.stage, self.policy, self.run_dir)
        metrics = self._train(self._stage, batch)
        self._step = batch.step
        seconds = time.monotonic() - begun_s
        metrics |= {"seconds": seconds, "tokens_per_s": metrics["tokens"] / max(seconds, 1e-9)}
        self._count(metrics)
        return self._finish(batch, self._stage, metrics)

    def metrics(self) -> dict[str, float]:
        """Steps, trained tokens and busy seconds since the last call."""
        figures, self._busy = self._busy, dict.fromkeys(self._busy, 0.0)
        return figures

    def on_stop(self) -> None:
        """Saves the newest step if no checkpoint holds it; nothing when a step failed or is cut off in the middle.

        Call it when no further step will begin, from any thread.
        """
        if self._training.acquire(blocking=False) and self._whole and self._step > self._checkpoint:
            assert self._stage is not None
            self._remember(msgspec.structs.replace(self._reports[self._step], checkpoint=self._step))
            self._save(self._stage)

    def _train(self, current: stage.StageState, batch: Batch) -> dict[str, float]:
        section, cfg = current.section, current.cfg
        data = rows.read(batch)
        reward_S, terms, figures = reward.of(
            data, section.reward, cfg, batch.stage_step, section.steps, self.cfg.sampling.max_new_tokens
        )
        data = rows.scored_at(data, cfg.scored_at())
        plan = update.Plan(
            section.epochs,
            section.minibatches,
            self.cfg.learner.tokens_per_microbatch,
            data.temperature,
            (self.cfg.seed, batch.step),
            batch.stage_step <= cfg.critic_warmup_steps,
            f"stage {batch.stage!r}, step {batch.step}",
        )
        parts = update.Learning(current.algorithm, cfg, self.policy, current.updater, current.reference)
        metrics = update.run(parts, data.sequences, torch.from_numpy(reward_S).float(), plan, terms)
        if current.average is not None:
            current.average.follow(self.policy)
        return {**figures, **metrics}

    def _finish(self, batch: Batch, current: stage.StageState, metrics: dict[str, float]) -> StepReport:
        every = current.section.publish_every
        weights = self._publish() if batch.last_of_stage or (every and batch.stage_step % every == 0) else None
        saves = batch.last_of_stage or batch.step % self.cfg.learner.checkpoint_every == 0
        report = StepReport(
            step=batch.step,
            metrics=metrics,
            weights=weights,
            incarnation=self.incarnation,
            checkpoint=batch.step if saves else self._checkpoint,
        )
        self._remember(report)
        # Before the checkpoint: a learner killed between the two trains the step again and exports again.
        if batch.last_of_stage:
            self._export(batch.stage)
        if saves:
            self._save(current)
        return report

    def _remember(self, report: StepReport) -> None:
        self._reports[report.step] = report
        for step in sorted(self._reports)[:-REPORTS_KEPT]:
            del self._reports[step]

    def _export(self, stage_name: str) -> None:
        """The model as each stage left it: RUN/stages/NAME, and RUN/final after the last."""
        targets = [self.run_dir / "stages" / stage_name]
        if stage_name == list(self.cfg.stages)[-1]:
            targets.append(self.run_dir / "final")
        for target in targets:
            export_hf(self.policy.model, self.model_dir, target, self._owner)

    def _repeat(self, step: int) -> StepReport:
        report = msgspec.structs.replace(self._reports[step], incarnation=self.incarnation)
        if step == self._step and self._republish:
            if report.weights is not None or self._publisher.is_empty():
                # Published weights may lie in memory and be gone after a reboot; the same weights give the same digest.
                # When an older version was the newest, nobody can make it again: this one takes its place.
                report = msgspec.structs.replace(report, weights=self._publish())
            self._republish = False
        self._remember(report)
        return report

    def _publish(self) -> WeightsRef:
        model_config = self.policy.model.config
        ids = publish.probe_ids(self.cfg.seed, model_config.vocab_size, model_config.max_position_embeddings)
        probe = publish.make_probe(self.policy, ids)
        self._owner.check()
        ref = self._publisher.publish(self.policy.policy_parameters(), self._step, probe)
        self._publisher.prune()
        return ref

    def _count(self, metrics: dict[str, float]) -> None:
        for name, value in (("steps", 1.0), ("tokens", metrics["tokens"]), ("seconds", metrics["seconds"])):
            self._busy[name] += value

    # --- checkpoints -------------------------------------------------------------------------------------------------

    def _save(self, current: stage.StageState) -> None:
        tensors: dict[str, torch.Tensor] = {f"model/{n}": p for n, p in self.policy.policy_parameters()}
        tensors |= {f"critic/{n}": p for n, p in self.policy.critic_parameters()}
        tensors |= {f"optimizer/{n}": t for n, t in current.updater.state().items()}
        if current.average is not None:
            tensors |= {f"reference/{n}": t for n, t in current.average.state().items()}
        tensors["rng"] = torch.get_rng_state()
        state = {
            "stage": current.name,
            "updates": current.updater.num_done,
            "settings": decisive(self.cfg),
            "reports": [msgspec.to_builtins(report) for report in self._reports.values()],
        }
        checkpoint.save(
            self.run_dir / "checkpoints",
            checkpoint.Checkpoint(self._step, tensors, state),
            self.cfg.learner.keep_checkpoints,
            self._owner,
        )
        self._checkpoint = self._step

    def _restore(self) -> None:
        found = checkpoint.load_newest(self.run_dir / "checkpoints")
        if found is None:
            return
        require_same(found, self.cfg, self.run_dir)
        self._stage = stage.begin(self.cfg, found.state["stage"], self.policy, self.run_dir, resumed=True)
        where = f"checkpoint of step {found.step}"
        stage.copy_into(dict(self.policy.policy_parameters()), _below(found.tensors, "model/"), where)
        stage.copy_into(dict(self.policy.critic_parameters()), _below(found.tensors, "critic/"), where)
        self._stage.updater.restore(_below(found.tensors, "optimizer/"), int(found.state["updates"]))
        if self._stage.average is not None:
            self._stage.average.restore(_below(found.tensors, "reference/"))
        torch.set_rng_state(found.tensors["rng"])
        for report in msgspec.convert(found.state["reports"], list[StepReport]):
            self._remember(report)
        self._step = self._checkpoint = found.step
        self._republish = True
        log.info("resumed", step=found.step, stage=found.state["stage"])


def decisive(cfg: RunConfig) -> dict[str, object]:
    """The settings that decide the weights, by their dotted keys, as a checkpoint keeps them."""
    flat = {key: value for key, value in settings(cfg).items() if decides_the_weights(key)}
    plain: dict[str, object] = msgspec.json.decode(msgspec.json.encode(flat))
    return plain


def require_same(found: checkpoint.Checkpoint, cfg: RunConfig, run_dir: Path) -> None:
    """Raises ConfigError that names the settings in which the checkpoint was made differently."""
    then, now = found.state["settings"], decisive(cfg)
    changed = [
        f"{key} was {then.get(key)!r} and is {now.get(key)!r} now"
        for key in sorted({**then, **now})
        if then.get(key) != now.get(key)
    ]
    if changed:
        more = f" and {len(changed) - 4} more" if len(changed) > 4 else ""
        raise ConfigError(
            f"{run_dir}: the checkpoint of step {found.step} was made with other settings: "
            f"{'; '.join(changed[:4])}{more}; go back to them, or give this run another name"
        )


def _below(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def _device(setting: str) -> str:
    if setting == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if setting == "cuda" and not torch.cuda.is_available():
        raise MachineError("learner.device is cuda and this machine has no CUDA device; set it to cpu")
    return setting
