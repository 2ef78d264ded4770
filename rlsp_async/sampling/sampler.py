"""The sampler: prompts become groups of rollouts; new weights are swapped in and checked before they count.

    SampleJob --> encode --> G completions at once in one engine --> texts --> RolloutGroup
    WeightsRef -> a file, or a transfer (`pulling.py`) -> engine.load_weights -> live sums, probe (`check.py`)
                                                                               -> serve, or refuse

Promises:
  * a group is returned only when every version that sampled its tokens has passed the probe: a group that ends while a
    version is being checked waits for the result, and groups in flight when a version is refused fail (EngineError);
  * a version that does not arrive changes nothing (WeightsDelayed);
  * after a refusal nothing is served until a good version comes;
  * an engine that died is started again (at most `RESTARTS` times) and has loaded the newest good weights before the
    next request is admitted.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import structlog

from rlsp_async.columns import pack_floats, pack_ints
from rlsp_async.config import RunConfig, load_environment
from rlsp_async.environments.pool import EnvironmentPool
from rlsp_async.errors import DataError, DivergedError, EngineError, WeightsDelayed, WeightsError, first_error
from rlsp_async.messages import Probe, Relayed, Rollout, RolloutGroup, SampleJob, WeightsRef
from rlsp_async.model.info import read_model_info
from rlsp_async.observations import num_sampled
from rlsp_async.sampling.check import LoadCheck
from rlsp_async.sampling.conversation import Conversations, sample_conversations
from rlsp_async.sampling.engine import Completion, Engine, GenerateSettings
from rlsp_async.sampling.engines import choose_engine, make_engine
from rlsp_async.sampling.meter import Meter
from rlsp_async.sampling.pulling import Puller, Source
from rlsp_async.tokens import Codec, TokenizerCodec
from rlsp_async.weights.kinds import host_id

RESTARTS = 3
"""An engine that dies more often has a fault that a restart does not repair."""

log = structlog.get_logger(__name__)


class Sampler:
    """`async with Sampler(cfg, model_dir, "sampler-0") as sampler: group = await sampler.sample(job)`."""

    def __init__(
        self,
        cfg: RunConfig,
        model_dir: Path,
        worker: str,
        *,
        engine: Engine | None = None,
        codec: Codec | None = None,
        longest_prompt: int | None = None,
        probe: Probe | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`engine` and `codec` replace those of the run's settings, for tests. `longest_prompt` is that of the run, in
        tokens, `probe` that of its initial model; None when they are not known."""
        self.worker = worker
        self._cfg = cfg
        self._model_dir = model_dir
        self._longest_prompt = longest_prompt
        self._initial_probe = probe
        self._why_engine = "given"
        self._engine = engine or self._chosen_engine()
        self._codec = codec or TokenizerCodec(model_dir, read_model_info(model_dir).eos_ids, cfg.task.template_options)
        self._check = LoadCheck(cfg, self._engine, model_dir)
        self._puller = Puller(worker, self._engine, host_id())
        self._meter = Meter(clock)
        self._changing = asyncio.Lock()
        self._in_flight: set[_Flight] = set()
        self._newest: WeightsRef | None = None
        self._newest_error = 0.0
        self._refused = ""
        self._num_restarts = 0
        environment = load_environment(cfg.task)
        self._environments = EnvironmentPool(environment, cfg.verifier.memory_mb) if environment else None

    async def __aenter__(self) -> Self:
        started = self._meter.now()
        await self._engine.start()
        log.info("engine started", engine=self._engine.name, seconds=round(self._meter.now() - started, 2))
        try:
            await self._check.calibrate(self._initial_probe)
            if self._environments:
                await self._environments.__aenter__()
        except BaseException:
            await self._engine.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._environments:
            await self._environments.__aexit__(kind, error, trace)
        await self._engine.close()

    @property
    def version(self) -> int:
        """Policy version that the next token is sampled from."""
        return self._engine.version

    @property
    def num_in_flight(self) -> int:
        """Groups that are being sampled."""
        return len(self._in_flight)

    @property
    def info(self) -> dict[str, str]:
        """Shown to people, in `Hello.info`."""
        return {"engine": self._engine.name, "engine_reason": self._why_engine, "window": str(self._engine.window)}

    def connect(self, send: Callable[[Relayed], None]) -> None:
        """Says how a message reaches the learner; its answers are given to `heard`."""
        self._puller.connect(send)

    def heard(self, message: Relayed) -> None:
        """The learner answers a request for weights."""
        self._puller.heard(message)

    def metrics(self) -> dict[str, float]:
        """Figures since the last call: tokens, rollouts, groups, seconds busy, seconds loading; and all restarts."""
        return self._meter.take() | {"restarts": float(self._num_restarts)}

    async def sample(self, job: SampleJob) -> RolloutGroup:
        """Samples the group of a job.

        Raises:
            DataError: the prompt is empty or fills the window.
            EngineError: the engine died, or a version that sampled for the group was refused.
            DivergedError: the engine died more than RESTARTS times.
        """
        prompt_ids = self._codec.encode(job.prompt)
        settings = self._settings(job, len(prompt_ids))
        await self._ready()
        flight = _Flight()
        self._in_flight.add(flight)
        try:
            with self._meter.busy():
                rollouts = await self._rollouts(prompt_ids, settings, job)
                async with self._changing:  # waits for the check of a version
                    flight.check()
        finally:
            self._in_flight.discard(flight)
        self._meter.add_group(len(rollouts), sum(num_sampled(rollout) for rollout in rollouts))
        return RolloutGroup(
            group_id=job.group_id,
            prompt=job.prompt,
            prompt_ids=pack_ints(prompt_ids),
            sampling=job.sampling,
            rollouts=rollouts,
            purpose=job.purpose,
            stage=job.stage,
        )

    async def load(self, ref: WeightsRef) -> float:
        """Loads a version, checks it and serves it.

        An engine that dies during the load is started again and tried once more; then the version is refused.

        Args:
            ref: the published version.

        Returns:
            The largest error of its probe.

        Raises:
            WeightsError: the version is refused, and nothing is served until a good one comes.
            WeightsDelayed: it has not arrived; what was served is served on.
        """
        newest = self._newest
        if newest and (newest.version, newest.digest) == (ref.version, ref.digest) and self._is_well():
            return self._newest_error
        with self._meter.loading():
            num_restarts = self._num_restarts
            try:
                if self._engine.errored:
                    raise EngineError("it was dead before")
                source = await self._bring(ref)  # meanwhile groups end, and others begin
                async with self._changing:
                    return await self._load(ref, source)
            except EngineError as e:
                log.warning("engine died while it loaded weights", version=ref.version, error=str(e))
            async with self._changing:
                return await self._load_after_death(ref, num_restarts)

    async def adopt(self, path: Path) -> None:
        """Serves the adapter in a file that no learner published, as version 1 and without a probe.

        To be called before the first group is sampled.

        Args:
            path: safetensors file under peft's names.

        Raises:
            WeightsError: it does not fit the model.
            EngineError: the engine died of it.
        """
        await self._engine.load_weights(path, 1)

    async def _bring(self, ref: WeightsRef) -> Source:
        try:
            return await self._puller.bring(ref)
        except WeightsError as e:
            self._refuse(str(e))
            raise

    async def _load_after_death(self, ref: WeightsRef, num_restarts: int) -> float:
        """Starts the engine again, unless somebody has done so since there were `num_restarts`, and loads once more."""
        if self._engine.errored or self._num_restarts == num_restarts:
            await self._restart()
        try:
            return await self._load_again(ref)
        except EngineError as e:
            self._refuse(f"version {ref.version}: the {self._engine.name} engine died of it twice: {e}")
            raise WeightsError(self._refused) from e

    async def _load_again(self, ref: WeightsRef) -> float:
        """Brings and loads a version into an engine that was started again, and has only the initial weights."""
        try:
            return await self._load(ref, await self._bring(ref))
        except WeightsDelayed as e:
            self._refuse(str(e))
            raise WeightsError(str(e)) from e

    async def _load(self, ref: WeightsRef, source: Source) -> float:
        """Loads what has arrived, and checks it."""
        started = self._meter.now()
        try:
            await self._engine.load_weights(source, ref.version)
            self._engine.weights_loaded(ref)
            error = await self._check.check(ref, source)
        except WeightsError as e:
            self._refuse(str(e))
            raise
        self._newest, self._newest_error, self._refused = ref, error, ""
        seconds = round(self._meter.now() - started, 3)
        log.info("weights loaded", version=ref.version, probe_error=error, seconds=seconds)
        return error

    def _refuse(self, reason: str) -> None:
        log.error("weights refused", reason=reason, groups_in_flight=len(self._in_flight))
        self._refused = reason
        for flight in self._in_flight:
            flight.refused = reason

    def _is_well(self) -> bool:
        return not self._engine.errored and not self._refused

    async def _ready(self) -> None:
        """Waits until the engine lives and serves a version that passed its probe. Raises EngineError."""
        if self._is_well():
            return
        async with self._changing:
            if self._engine.errored:
                await self._restart()
                if self._newest:
                    await self._restore(self._newest)
            if self._refused:
                raise EngineError(f"{self.worker} serves nothing until good weights come: {self._refused}")

    async def _restore(self, ref: WeightsRef) -> None:
        try:
            await self._load_again(ref)
        except WeightsError as e:  # deleted meanwhile: a newer version is on its way
            raise EngineError(f"{self.worker}: after a restart: {e}") from e

    async def _restart(self) -> None:
        if self._num_restarts >= RESTARTS:
            raise DivergedError(f"{self.worker}: the {self._engine.name} engine died {RESTARTS + 1} times, see its log")
        self._num_restarts += 1
        log.warning("engine restarts", worker=self.worker, restart=self._num_restarts, of=RESTARTS)
        await self._engine.close()
        await self._engine.start()

    async def _rollouts(self, prompt_ids: list[int], settings: GenerateSettings, job: SampleJob) -> list[Rollout]:
        if self._environments:
            given = Conversations(
                engine=self._engine,
                codec=self._codec,
                environments=self._environments,
                job=job,
                prompt_ids=prompt_ids,
                settings=settings,
                to_text=self._text,
                worker=self.worker,
                clock=self._meter.now,
            )
            return await sample_conversations(given)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._rollout(index, prompt_ids, _of_rollout(settings, index)))
                    for index in range(job.sampling.rollouts)
                ]
        except* (EngineError, DataError) as failures:
            raise first_error(failures) from failures
        return [task.result() for task in tasks]

    async def _rollout(self, index: int, prompt_ids: list[int], settings: GenerateSettings) -> Rollout:
        started = self._meter.now()
        completion = await self._engine.generate(prompt_ids, settings)
        return Rollout(
            index=index,
            token_ids=pack_ints(completion.token_ids),
            logprobs=pack_floats(completion.logprobs),
            versions=pack_ints(completion.versions),
            text=self._text(completion),
            finish=completion.finish,
            sampler=self.worker,
            seconds=self._meter.now() - started,
        )

    def _text(self, completion: Completion) -> str:
        ids = completion.token_ids
        keep = np.ones(len(ids), dtype=bool)
        if len(ids) and int(ids[-1]) in self._codec.stop_ids:
            keep[-1] = False  # the tokenizer may not count a stop id as a special token
        return self._codec.decode([int(token) for token in ids[keep]])

    def _settings(self, job: SampleJob, num_prompt_tokens: int) -> GenerateSettings:
        room = self._engine.window - num_prompt_tokens
        if num_prompt_tokens == 0:
            raise DataError(f"prompt {job.prompt.prompt_id!r} has no tokens")
        if room < 1:
            raise DataError(
                f"prompt {job.prompt.prompt_id!r} has {num_prompt_tokens} tokens, the window is "
                f"{self._engine.window}: at least one token must be left for the response"
            )
        return GenerateSettings(
            max_new_tokens=min(job.sampling.max_new_tokens, room),
            temperature=job.sampling.temperature,
            stop_ids=self._codec.stop_ids,
            seed=(job.sampling.seed, job.group_id),
            together=job.sampling.rollouts if self._cfg.is_synchronous else 0,
        )

    def _chosen_engine(self) -> Engine:
        name, self._why_engine = choose_engine(self._cfg, self._model_dir)
        log.info("engine chosen", engine=name, reason=self._why_engine)
        return make_engine(
            name, self._cfg, self._model_dir, engine_seed(self._cfg.seed, self.worker), self._longest_prompt
        )


def _of_rollout(settings: GenerateSettings, index: int) -> GenerateSettings:
    """The settings of one rollout of a group: with random numbers of its own."""
    return dataclasses.replace(settings, seed=(*settings.seed, index))


class _Flight:
    """A group in flight. `refused` is the reason why its tokens are void; empty while they are not."""

    def __init__(self) -> None:
        self.refused = ""

    def check(self) -> None:
        if self.refused:
            raise EngineError(f"group void: {self.refused}")


def engine_seed(seed: int, worker: str) -> int:
    """A seed in 0..2^31-1 that differs between workers and runs; with equal seeds they would sample equal rollouts."""
    words = np.random.SeedSequence([seed, *worker.encode()]).generate_state(1)
    return int(words[0]) >> 1
