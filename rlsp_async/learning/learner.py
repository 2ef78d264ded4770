"""The learner: batches in, step reports and weights out. Blocking; the service runs it in a thread of its own.

    TrainJob(step s) -> rows -> rewards -> updates -> a copy of the weights -> the next step
                                                          thread "weights": their file and its name -> report
                                                          thread "files":   checkpoint (every so often), export

The thread that trains copies (`Snapshot`, `checkpoint.host_copy`) and computes the probe; the rest is done beside the
next step (`Outbox`). The report of a step leaves as soon as its version is complete, and says which checkpoint was
complete then. Only the report of a stage's last step waits for export and checkpoint: a run that is over has them.

Promises: step s is trained once, on the weights of step s - 1 (the first step of a stage that starts from the base: on
those of the base). A repeat of step s is answered from memory or checkpoint. From one checkpoint and the same batches a
CPU makes the same bits. A restart begins at the newest complete checkpoint, and the hub sends the steps after it again.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec
import numpy as np
import structlog
import torch

from rlsp_async.columns import Ids, ints
from rlsp_async.config import LATER_SETTINGS, RunConfig, decides_the_weights, load_lora
from rlsp_async.config.flatten import settings
from rlsp_async.contents import find_guilty
from rlsp_async.cuda import has_cuda, is_shared_card, learner_share, use_deterministic_kernels
from rlsp_async.errors import ConfigError, ContentError, MachineError, MessageError
from rlsp_async.learning import checkpoint, lora, publish, reward, rows, stage, update
from rlsp_async.learning.fence import WriteFence
from rlsp_async.learning.outbox import WORK_S, Outbox
from rlsp_async.learning.policy import Policy, load_model
from rlsp_async.learning.ranks import Ranks
from rlsp_async.messages import Batch, Probe, Prompt, StepReport, TrainJob
from rlsp_async.model.info import longest_sequence
from rlsp_async.weights.file import FileTransport, choose_directory
from rlsp_async.weights.probe import read_initial_probe
from rlsp_async.weights.snapshot import Snapshot
from rlsp_async.weights.transport import WeightTransport

REPORTS_KEPT = 4
"""Number of reports that a learner keeps; more than the steps it can have trained and not yet reported (its credit)."""

log = structlog.get_logger()


class Order(msgspec.Struct, frozen=True):
    """What rank 0 has the other ranks of its learner do: the same as it does itself at that moment."""

    kind: Literal["train", "take", "save", "idle", "stop"]
    job: TrainJob | None = None
    """The batch, for "train"."""


class Learner:
    """Trains a run: one step after the other, from its newest checkpoint on."""

    def __init__(
        self,
        cfg: RunConfig,
        model_dir: Path,
        run_dir: Path,
        transport: WeightTransport | None = None,
        incarnation: int = 0,
        encode: Callable[[Prompt], list[int]] | None = None,
        claims: bool = True,
        ranks: Ranks = Ranks.single(),  # noqa: B008
    ) -> None:
        """Claims the run's files, loads the model and the newest checkpoint.

        Args:
            cfg: the run.
            model_dir: the model that the first stage starts from.
            run_dir: the run's directory.
            transport: how weights leave; None: files in the run's weights directory.
            incarnation: start number of this process.
            encode: encodes a prompt; None: the prompt ids of rollouts are not compared with those of their prompts.
            claims: claim the files at once; False: `claim` is called before the first step.
            ranks: the ranks of this learner. Rank 0 is used as a learner of one rank is; the others `obey` it.

        Raises:
            FencedError: a newer start has claimed the run.
            ConfigError: the checkpoint was made with other settings.
            DataError: no checkpoint, or not the model, can be loaded.
            MachineError: the disk refuses, or there is no CUDA device.
        """
        torch.set_num_threads(cfg.learner.threads)
        if cfg.learner.deterministic:
            use_deterministic_kernels()
        self.cfg, self.model_dir, self.run_dir = cfg, model_dir, run_dir
        self._encode = encode
        self._fence = WriteFence(run_dir / "checkpoints", incarnation)
        self.incarnation, self.device = incarnation, find_device(cfg.learner.device)
        self.ranks = ranks
        if self.device == "cuda" and is_shared_card(os.environ):
            torch.cuda.set_per_process_memory_fraction(learner_share(cfg.sampler.count * cfg.sampler.memory))
        if claims:
            self.claim()
        self._lora, self._base = load_lora(cfg.model), dict[str, str]()
        self.policy = self._load_policy()
        num_bytes = sum(p.numel() * p.element_size() for _, p in self.policy.policy_parameters())
        self._transport = transport or FileTransport(choose_directory(cfg, num_bytes), run_dir)
        self._step, self._checkpoint = 0, 0
        self._stage: stage.StageState | None = None
        self._outbox = Outbox()
        self._reports: dict[int, Future[StepReport]] = {}
        """Reports of the newest steps, by step: a hub that was killed may not have received them, and asks again."""
        self._republish = self._is_prepared = False
        self._training, self._whole = threading.Lock(), True
        self._busy = {"steps": 0.0, "tokens": 0.0, "seconds": 0.0}
        self._restore()

    def _load_policy(self) -> Policy:
        """The model that the first stage starts from, with its adapters, sharded over the ranks."""
        cfg, model_dir = self.cfg, self.model_dir
        build = partial(load_model, model_dir, cfg.model.dtype, self.device, cfg.learner.gradient_checkpointing)
        model = build()
        if self.ranks.is_first:
            publish.try_export(model, model_dir)
        if self._lora:
            lora.add_adapters(model, self._lora, cfg.seed, str(model_dir))
            self._base = lora.describe_base(model_dir)
        return Policy(model).shard(self.ranks, build)

    def claim(self, alone: bool = False) -> None:
        """Claims the run's files for this start and removes what older ones left half written (`WriteFence.claim`)."""
        self._fence.claim(alone)
        self._fence.sweep([self.run_dir / "checkpoints", self.run_dir / "stages", self.run_dir])
        self.incarnation = self._fence.incarnation

    @property
    def step(self) -> int:
        """Newest step in the weights; 0 before the first."""
        return self._step

    @property
    def reference(self) -> Policy | None:
        """The reference policy of the present stage, if it has one."""
        return None if self._stage is None else self._stage.reference

    @property
    def failed(self) -> Future[None]:
        """Done with the error of what is written beside training and nobody waits for: the learner cannot go on."""
        return self._outbox.failed

    def train(self, job: TrainJob) -> StepReport:
        """Trains the next step as `begin` does, and waits until all that follows from it is written."""
        report = self.begin(job).result(WORK_S)
        self.settle()
        return report

    def settle(self) -> None:
        """Waits until all that was trained is published, and saved where that is due. Raises what went wrong."""
        self._outbox.settle()
        self._outbox.check()

    def begin(self, job: TrainJob) -> Future[StepReport]:
        """Trains the next step, or answers a repeat of one of the last REPORTS_KEPT steps.

        Args:
            job: the batch of a step.

        Returns:
            the report of the step, once its weights are complete; at the end of a stage, once it is saved and exported.

        Raises:
            MessageError: the step is neither, or its batch cannot be trained.
            ContentError: groups of the batch cannot be trained on; nothing was trained.
            DivergedError: the loss or a gradient is not finite.
            ConfigError: the run has no such stage, or a setting does not fit the batch.
            FencedError: a newer start of the learner has claimed the run.
            MachineError: the disk refuses.
        """
        with self._training:
            self._outbox.check()
            if job.batch.step in self._reports:
                return self._repeat(job.batch.step)
            if job.batch.step != self._step + 1:
                raise MessageError(f"step {job.batch.step} cannot follow step {self._step} of these weights")
            self._check_content(job.batch)
            self._tell(Order("train", job))
            self._whole = False
            report = self._next(job.batch)
            self._whole = True
            return report

    # --- several ranks -----------------------------------------------------------------------------------------------

    def _tell(self, order: Order) -> None:
        """Has the other ranks do what this one is about to do."""
        if self.ranks.size > 1:
            self.ranks.broadcast_bytes(msgspec.msgpack.encode(order))

    def order_idle(self) -> None:
        """Tells the other ranks that there is nothing to do, if nothing is trained: they wait for an order so long."""
        if self._training.acquire(blocking=False):
            try:
                self._tell(Order("idle"))
            finally:
                self._training.release()

    def obey(self, order: Order) -> None:
        """Does, as another rank than 0, what rank 0 does. Raises what `begin` raises."""
        self._outbox.check()
        if order.job is not None:
            self._next(order.job.batch)
        elif order.kind == "take":
            self._take_part()
        elif order.kind == "save":
            assert self._stage is not None
            self._save(self._copied(self._stage))

    def _check_content(self, batch: Batch) -> None:
        """Raises ContentError, which names every group of a batch that cannot be trained on."""
        guilty = find_guilty(batch.groups, self.policy.model.config.vocab_size, self._encode)
        if guilty:
            more = f" (and {len(guilty) - 1} more groups)" if len(guilty) > 1 else ""
            raise ContentError(f"step {batch.step}: {next(iter(guilty.values()))}{more}", sorted(guilty))

    def _next(self, batch: Batch) -> Future[StepReport]:
        """Trains the next step; begins its stage if that is new."""
        begun_s = time.monotonic()
        if self.ranks.is_first and not self._is_prepared:
            # The first version of this process finds its pages there. They come in while the step is trained.
            infos = publish.published_infos(self.policy)
            self._outbox.add("weights", partial(self._transport.prepare, infos, self.incarnation))
            self._is_prepared = True
        if self._stage is None or self._stage.name != batch.stage:
            if self._stage is not None:
                self._stage.updater.close()
            self._stage = stage.begin_stage(self.cfg, batch.stage, self.policy, self.run_dir)
        # A batch all of whose groups were taken out of it leaves the weights as they are.
        metrics = self._train(self._stage, batch) if batch.groups else {"tokens": 0.0}
        self._step = batch.step
        seconds = time.monotonic() - begun_s
        metrics |= {"seconds": seconds, "tokens_per_s": metrics["tokens"] / max(seconds, 1e-9)}
        self._count(metrics)
        return self._finish(batch, self._stage, metrics)

    def metrics(self) -> dict[str, float]:
        """Returns steps, trained tokens and busy seconds since the last call."""
        figures, self._busy = self._busy, dict.fromkeys(self._busy, 0.0)
        return figures

    def on_stop(self) -> None:
        """Saves the newest step if no checkpoint holds it; does nothing when a step failed or is in progress.

        To be called when no further step will begin, from any thread. Waits for what is being written.
        """
        if self._training.acquire(blocking=False) and self._whole and not self._outbox.has_failed:
            self._outbox.settle()
            if self._step > self._checkpoint and not self._outbox.has_failed:
                assert self._stage is not None
                self._tell(Order("save"))
                self._save(self._copied(self._stage))
            self._tell(Order("stop"))
        self._transport.close()

    def _train(self, current: stage.StageState, batch: Batch) -> dict[str, float]:
        """Rewards and updates of one step; returns its metrics."""
        section, cfg = current.section, current.cfg
        data = rows.read_rows(batch)
        reward_B, terms, reward_metrics = reward.compute_reward(
            data, section.reward, cfg, batch.stage_step, section.steps, self.cfg.sampling.max_new_tokens
        )
        data = rows.at_temperature(data, cfg.scored_at())
        data = rows.without_truncated(data) if cfg.mask_truncated else data
        schedule = update.UpdateSchedule(
            epochs=section.epochs,
            minibatches=section.minibatches,
            capacity_tokens=self.cfg.learner.tokens_per_microbatch,
            temperature=data.temperature,
            seed=(self.cfg.seed, batch.step),
            critic_only=batch.stage_step <= cfg.critic_warmup_steps,
            where=f"stage {batch.stage!r}, step {batch.step}",
        )
        context = update.UpdateContext(current.algorithm, cfg, self.policy, current.updater, current.reference)
        rewards_B = torch.from_numpy(reward_B).float()
        metrics = update.train_batch(context, data.sequences, rewards_B, schedule, terms)
        if current.average is not None:
            current.average.follow(self.policy)
        return {**reward_metrics, **metrics}

    def _finish(self, batch: Batch, current: stage.StageState, metrics: dict[str, float]) -> Future[StepReport]:
        """Copies what is due after a step, and has it published, exported and saved; returns the report to come."""
        publishes = batch.last_of_stage or self.cfg.publishes_after(batch.stage, batch.stage_step)
        every = self.cfg.learner.checkpoint_every
        saves = batch.last_of_stage or (every > 0 and batch.step % every == 0)
        taken = self._take() if publishes and self.ranks.is_first else None
        if publishes and not self.ranks.is_first:
            self._take_part()
        report = StepReport(step=batch.step, metrics=metrics, incarnation=self.incarnation)
        published = self._outbox.put("weights", partial(self._publish, report, taken))
        self._remember(batch.step, published)
        if taken is not None:
            if batch.last_of_stage and not self._lora:
                taken.snapshot.hold()
            self._outbox.add("weights", partial(self._make_room, taken.snapshot))
        copied = self._copied(current) if saves else None
        if batch.last_of_stage and taken is not None:
            assert copied is not None
            return self._end_stage(batch, taken.snapshot, copied, published)
        if copied is not None:
            self._outbox.add("files", partial(self._save, copied))
        return published

    def _end_stage(
        self, batch: Batch, snapshot: Snapshot, copied: _Copied, published: Future[StepReport]
    ) -> Future[StepReport]:
        """Has the last step of a stage exported and saved; returns its report to come.

        The export comes before the checkpoint: a learner that is killed between the two trains and exports again.
        """
        written: list[Future[None]] = []
        if self._lora:  # adapters are added to the weights and taken out again: no step may run meanwhile
            self._export(batch.stage, None)
        else:
            written.append(self._outbox.put("files", partial(self._export, batch.stage, snapshot)))
        written.append(self._outbox.put("files", partial(self._save, copied)))
        last = self._outbox.put("files", partial(self._complete, written, published))
        self._remember(batch.step, last)
        return last

    def _remember(self, step: int, report: Future[StepReport]) -> None:
        """Keeps a report, and the newest REPORTS_KEPT in all."""
        self._reports[step] = report
        for older in sorted(self._reports)[:-REPORTS_KEPT]:
            del self._reports[older]

    def _repeat(self, step: int) -> Future[StepReport]:
        """Answers a step that was trained before; publishes its weights again if they may be lost."""
        kept = self._reports[step]
        if not kept.done():
            return kept
        report = msgspec.structs.replace(kept.result(), incarnation=self.incarnation)
        answer: Future[StepReport] = _done(report)
        if step == self._step and self._republish:
            if report.weights is not None or not self._transport.versions():
                # Published weights may lie in shared memory and be gone after a reboot; the same weights have the same
                # digest. If the newest published version was an older one, it cannot be made again; this one replaces
                # it.
                self._tell(Order("take"))
                answer = self._outbox.put("weights", partial(self._publish, report, self._take()))
            self._republish = False
        self._remember(step, answer)
        return answer

    def _probe_ids(self) -> Ids:
        """The sequence of the run's initial probe, with which engines were measured; where there is none, another."""
        initial = read_initial_probe(self.run_dir)
        if initial is not None:
            return ints(initial.ids)
        model_config = self.policy.model.config
        longest = longest_sequence(model_config.to_dict()) or publish.PROBE_TOKENS
        return publish.probe_ids(self.cfg.seed, model_config.vocab_size, longest)

    def _take(self) -> _Taken:
        """Copies the present weights, and computes their probe: all that a version costs the thread that trains."""
        probe = publish.make_probe(self.policy, self._probe_ids())
        self._fence.check()
        tensors = publish.published_tensors(self.policy)
        return _Taken(self._transport.take(tensors.items(), self._step, self.incarnation), probe)

    def _take_part(self) -> None:
        """Takes part, as another rank than 0, in the pass and in the gathering of `_take`."""
        publish.make_probe(self.policy, np.zeros(2, np.int32))
        publish.published_tensors(self.policy)

    # --- beside training ---------------------------------------------------------------------------------------------

    def _publish(self, report: StepReport, taken: _Taken | None) -> StepReport:
        """Makes a version available, if there is one, and deletes old ones; returns the report with its reference."""
        weights = None
        if taken is not None:
            self._fence.check()
            weights = self._transport.publish(taken.snapshot, taken.probe)
        checkpoint_step = max(report.checkpoint, self._checkpoint)
        return msgspec.structs.replace(report, weights=weights, checkpoint=checkpoint_step)

    def _make_room(self, snapshot: Snapshot) -> None:
        """Removes old versions, and brings in the pages of the next one."""
        self._transport.prune(self.cfg.learner.keep_weights, self.incarnation)
        self._transport.prepare(snapshot.layout.infos, self.incarnation)

    def _export(self, stage_name: str, snapshot: Snapshot | None) -> None:
        """Exports the model as a stage left it to RUN/stages/NAME, and to RUN/final after the last stage.

        With a snapshot the model may be in training. Without one (adapters are added to the weights) it must not be.
        """
        targets = [self.run_dir / "stages" / stage_name]
        if stage_name == list(self.cfg.stages)[-1]:
            targets.append(self.run_dir / "final")
        try:
            for target in targets:
                publish.export_hf(self.policy.model, self.model_dir, target, self._fence, self._lora, snapshot)
        finally:
            if snapshot is not None:
                snapshot.release()

    def _complete(self, written: list[Future[None]], published: Future[StepReport]) -> StepReport:
        """The report of a stage's last step, once what belongs to it is written."""
        for each in written:
            each.result(0)  # done: works of one thread are done in order
        return msgspec.structs.replace(published.result(WORK_S), checkpoint=self._checkpoint)

    def _count(self, metrics: dict[str, float]) -> None:
        """Adds a step to what `metrics` returns."""
        for name, value in (("steps", 1.0), ("tokens", metrics["tokens"]), ("seconds", metrics["seconds"])):
            self._busy[name] += value

    # --- checkpoints -------------------------------------------------------------------------------------------------

    def _copied(self, current: stage.StageState) -> _Copied:
        """Copies what a checkpoint of the newest step holds. At most one such copy exists: it waits for the one before
        to be written."""
        self._outbox.settle("files")
        policy, updater = self.policy, current.updater
        held = {f"model/{n}": (t, is_sharded) for n, t, is_sharded in policy.held(policy.policy_parameters())}
        held |= {f"critic/{n}": (t, is_sharded) for n, t, is_sharded in policy.held(policy.critic_parameters())}
        held |= {f"optimizer/{n}": (t, updater.is_split(n)) for n, t in updater.state().items()}
        if current.average is not None:
            held |= {f"reference/{n}": (t, self.ranks.size > 1) for n, t in current.average.state().items()}
        held["rng"] = torch.get_rng_state(), False
        tensors = {name: t for name, (t, is_split) in held.items() if is_split or self.ranks.is_first}
        state = {
            "stage": current.name,
            "updates": current.updater.num_done,
            "settings": deciding_settings(self.cfg),
            **({"base": self._base} if self._base else {}),
        }
        copied = checkpoint.Checkpoint(self._step, checkpoint.host_copy(tensors), state)
        return _Copied(copied, list(self._reports.values()))

    def _save(self, copied: _Copied) -> None:
        """Writes a checkpoint, with the newest reports; that of its own step names it."""
        step = copied.checkpoint.step
        reports = [report.result(WORK_S) for report in copied.reports]
        reports = [
            msgspec.structs.replace(report, checkpoint=step) if report.step == step else report for report in reports
        ]
        copied.checkpoint.state["reports"] = [msgspec.to_builtins(report) for report in reports]
        keep, ranks = self.cfg.learner.keep_checkpoints, self.ranks.aside or self.ranks
        checkpoint.save(self.run_dir / "checkpoints", copied.checkpoint, keep, self._fence, ranks)
        self._checkpoint = step

    def _restore(self) -> None:
        """Goes back to the newest checkpoint, if there is one."""
        newest = checkpoint.load_newest(self.run_dir / "checkpoints", self.ranks)
        if newest is None:
            return
        require_same_settings(newest, self.cfg, self.run_dir)
        lora.require_base(newest.state.get("base", {}), self._base, self.run_dir)
        self._stage = stage.begin_stage(self.cfg, newest.state["stage"], self.policy, self.run_dir, resumed=True)
        where = f"checkpoint of step {newest.step}"
        stage.copy_into(dict(self.policy.policy_parameters()), checkpoint.Prefixed(newest.tensors, "model/"), where)
        stage.copy_into(dict(self.policy.critic_parameters()), checkpoint.Prefixed(newest.tensors, "critic/"), where)
        self._stage.updater.restore(checkpoint.Prefixed(newest.tensors, "optimizer/"), int(newest.state["updates"]))
        if self._stage.average is not None:
            self._stage.average.restore(checkpoint.Prefixed(newest.tensors, "reference/"))
        torch.set_rng_state(newest.tensors["rng"])
        for report in msgspec.convert(newest.state["reports"], list[StepReport]):
            self._remember(report.step, _done(report))
        self._step = self._checkpoint = newest.step
        self._republish = True
        log.info("resumed", step=newest.step, stage=newest.state["stage"])


class _Taken(NamedTuple):
    """A version that was copied and is not published yet."""

    snapshot: Snapshot
    probe: Probe


class _Copied(NamedTuple):
    """A checkpoint that was copied and is not written yet."""

    checkpoint: checkpoint.Checkpoint
    reports: list[Future[StepReport]]
    """Those of the newest steps, its own the last."""


def _done(report: StepReport) -> Future[StepReport]:
    """A report that is there."""
    future: Future[StepReport] = Future()
    future.set_result(report)
    return future


def deciding_settings(cfg: RunConfig) -> dict[str, object]:
    """The settings that decide the weights, by their dotted keys, in the form that a checkpoint keeps."""
    flat = {
        key: value
        for key, value in settings(cfg).items()
        if decides_the_weights(key) and (key not in LATER_SETTINGS or value != LATER_SETTINGS[key])
    }
    plain: dict[str, object] = msgspec.json.decode(msgspec.json.encode(flat))
    return plain


def require_same_settings(saved: checkpoint.Checkpoint, cfg: RunConfig, run_dir: Path) -> None:
    """Asserts that a checkpoint was made with the settings of this run.

    Args:
        saved: the checkpoint.
        cfg: the run.
        run_dir: the run's directory, for the error.

    Raises:
        ConfigError: a setting that decides the weights differs; the sentence names up to four of them.
    """
    then, now = dict(saved.state["settings"]), deciding_settings(cfg)
    if cfg.learner.other_ranks and then.get("learner.ranks", 1) != cfg.learner.ranks:
        log.warning("other ranks: last bits differ from here on", step=saved.step, ranks=cfg.learner.ranks)
        now["learner.ranks"] = then["learner.ranks"] = cfg.learner.ranks
    changed = [
        f"{key} was {then.get(key)!r} and is {now.get(key)!r} now"
        for key in sorted({**then, **now})
        if then.get(key) != now.get(key)
    ]
    if changed:
        more = f" and {len(changed) - 4} more" if len(changed) > 4 else ""
        raise ConfigError(
            f"{run_dir}: the checkpoint of step {saved.step} was made with other settings: "
            f"{'; '.join(changed[:4])}{more}; go back to them, or give this run another name"
        )


def find_device(setting: str) -> str:
    """The device that `learner.device` means on this machine. Raises MachineError when it is not there."""
    if setting == "auto":
        return "cuda" if has_cuda() else "cpu"
    if setting == "cuda" and not has_cuda():
        raise MachineError("learner.device is cuda and this machine has no CUDA device; set it to cpu")
    return setting
