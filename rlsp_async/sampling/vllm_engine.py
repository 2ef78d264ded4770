"""The vLLM engine: AsyncLLM in this process, the model in a child process, weights swapped while completions run.

A swap follows vLLM's own lifecycle, always under a pause: pause ("keep": nothing is dropped), start, update, finish
with the version, resume. Running completions go on with the new weights and their old KV cache. vLLM labels each token
with the version that sampled it; the label is exact because versions change only while no step runs. The prefix cache
gets a new salt at every load, because otherwise a prompt would reuse keys and values of older weights. With adapters
the pause is the same, and what is loaded is an adapter (`vllm_lora.py`).

Only `vllm_*.py` import vllm.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import warnings
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import structlog

from rlsp_async.columns import Floats
from rlsp_async.config import RunConfig, load_lora
from rlsp_async.cuda import has_cuda, is_shared_card
from rlsp_async.errors import DataError, EngineError, MachineError
from rlsp_async.messages import Invite, WeightsRef
from rlsp_async.model.adapter import choose_layers, empty_model
from rlsp_async.model.info import read_model_info
from rlsp_async.sampling.engine import Completion, GenerateSettings, Staged
from rlsp_async.sampling.vllm_settings import (
    LOWEST_TEMPERATURE,
    engine_arguments,
    gpu_arguments,
    lora_arguments,
    set_environment,
)
from rlsp_async.weights.receive import Progress

BACKEND = "rlsp-file"
EXTENSION = "rlsp_async.sampling.vllm_extension.Extension"
ASK_S = 60.0
"""How long a worker may take to answer: it answers between two steps of the model."""
CLOSE_S = 10.0
"""How long the end waits for requests that are aborted."""
DEATH_S = 5.0
"""How long vLLM may take to fail what it was asked after its process has ended."""

T = TypeVar("T")

log = structlog.get_logger(__name__)


class VllmEngine:
    """Satisfies `Engine`. At most one runs in a process; it may be closed and started again."""

    name = "vllm"

    def __init__(self, cfg: RunConfig, model_dir: Path, seed: int, longest_prompt: int | None = None) -> None:
        """Raises DataError or ConfigError when model and settings do not fit; starts nothing."""
        self._cpu = not has_cuda()
        self._cfg, self._info = cfg, read_model_info(model_dir)
        self._arguments = engine_arguments(cfg, model_dir, self._info, seed, self._cpu, longest_prompt)
        self.window: int = self._arguments["max_model_len"]
        self._lora, self._layers, self._first_shape = load_lora(cfg.model), list[str](), (0, 0)
        if self._lora:
            empty = empty_model(model_dir)
            self._layers = choose_layers(empty, self._lora.targets, str(model_dir))
            self._first_shape = tuple(empty.get_submodule(self._layers[0]).weight.shape)
            self._arguments |= lora_arguments(self._lora, self._layers)
        self._adapter: Any = None
        self.core_pid = 0
        """Process id of the child in which the model runs."""
        self._llm: Any = None
        self._thread: ThreadPoolExecutor | None = None
        self._version = 0
        self._salts = itertools.count()
        self._salt = ""
        self._request_ids = itertools.count()
        self._half_loaded = False
        self._core: _CoreEnd | None = None

    @property
    def version(self) -> int:
        """Policy version that the next token is sampled from."""
        return self._version

    @property
    def errored(self) -> bool:
        """Whether the engine is not started, died, or failed in the middle of a load."""
        if self._core is not None and self._core.ended.done():
            return True
        return self._llm is None or self._half_loaded or self._llm.errored

    async def start(self) -> None:
        """Imports vLLM, forks the engine and waits until it is up, in a thread that lives as long as the engine.

        The parent-death signal follows the thread that forked, so that thread must not end earlier.
        """
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="vllm")
        self._version, self._half_loaded = 0, False
        self._new_salt()
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._thread, self._make)
            from vllm.distributed.weight_transfer.base import WeightTransferInitRequest

            await self._llm.init_weight_transfer_engine(WeightTransferInitRequest(init_info={}))
            self.core_pid = (await self._llm.collective_rpc("die_with", args=(os.getpid(),)))[0]
            self._core = _CoreEnd(self.core_pid)
            if self._lora:
                from rlsp_async.sampling.vllm_lora import AdapterDirectory

                self._adapter = AdapterDirectory(self._lora, self._layers, self._first_shape)
                await self._llm.add_lora(self._adapter.loading())
            await self._llm.update_weight_version("0")
        except BaseException:
            await self.close()
            raise

    async def generate(self, prompt_ids: Sequence[int], settings: GenerateSettings) -> Completion:
        """Samples one completion. Raises DataError when the prompt fills the window or the temperature is too low."""
        if len(prompt_ids) >= self.window:
            raise DataError(f"a prompt of {len(prompt_ids)} tokens leaves no room in a window of {self.window}")
        if settings.temperature < LOWEST_TEMPERATURE:
            raise DataError(
                f"temperature {settings.temperature:g} is below {LOWEST_TEMPERATURE}, the lowest at which vLLM samples"
            )
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        params = SamplingParams(
            max_tokens=min(settings.max_new_tokens, self.window - len(prompt_ids)),
            temperature=settings.temperature,
            logprobs=0,
            detokenize=False,
            flat_logprobs=True,  # lists of numbers, not a dictionary and an object a token in the loop of heartbeats
            output_kind=RequestOutputKind.FINAL_ONLY,
            stop_token_ids=list(settings.stop_ids),
            ignore_eos=True,  # only the stop ids end a completion
            seed=_seed_of(settings) if settings.together else None,  # a generator for each request is slow
        )
        output = (await self._request(prompt_ids, params)).outputs[0]
        if output.finish_reason not in ("stop", "length"):
            raise EngineError(f"vLLM ended a completion with {output.finish_reason!r}")
        return Completion(
            token_ids=np.asarray(output.token_ids, dtype=np.int32),
            logprobs=logprobs_of(output.logprobs, output.token_ids),
            versions=versions_of(output.weight_versions, len(output.token_ids)),
            finish=output.finish_reason,
        )

    async def load_weights(self, source: Path | Staged, version: int) -> None:
        """Swaps under a pause. After a failure in the middle the weights are mixed, and the engine counts as dead."""
        self._alive()
        self._half_loaded = True
        try:
            await self._while_core_lives(self._swap(source, version))
        except EngineError:
            raise
        except Exception as e:
            raise EngineError(f"vLLM failed while it loaded version {version}: {e}") from e
        self._half_loaded = False

    async def _swap(self, source: Path | Staged, version: int) -> None:
        """Pauses, loads and resumes. Raises whatever vLLM raises."""
        llm = self._alive()
        from vllm.distributed.weight_transfer.base import WeightTransferUpdateRequest

        await llm.pause_generation(mode="keep", clear_cache=False)
        if self._adapter:
            self._adapter.point_to(await self._as_file(source, self._adapter.received))
            await llm.add_lora(self._adapter.loading())
            await llm.update_weight_version(str(version))
        else:
            await llm.start_weight_update()
            await llm.update_weights(WeightTransferUpdateRequest(update_info=_update(source)))
            await llm.finish_weight_update(str(version))
        self._version = version
        self._new_salt()
        await llm.resume_generation()

    def weights_loaded(self, ref: WeightsRef) -> None:
        """Nothing is to be done: the model computes the probe."""

    async def live_total(self) -> int | None:
        """The total of the worker's parameters; None with adapters, or where several workers share the model."""
        if self._lora:
            return None
        totals = await self._ask("live_total")
        return int(totals[0]) if len(totals) == 1 else None

    async def _as_file(self, source: Path | Staged, path: Path) -> Path:
        """The file of a version. What a worker has received is written to `path` by it."""
        if isinstance(source, Staged):
            await self._alive().collective_rpc("receive_write", args=(source.ticket, str(path)))
            return path
        return source

    async def receive_begin(self, invite: Invite) -> None:
        """Each worker receives in a thread of its own."""
        await self._ask("receive_begin", msgspec.msgpack.encode(invite))

    async def receive_poll(self) -> list[Progress]:
        """How far each worker is."""
        return [Progress(*found) for found in await self._ask("receive_poll")]

    async def receive_stop(self) -> None:
        """Ends it in each worker."""
        await self._ask("receive_stop")

    async def _ask(self, method: str, *arguments: Any) -> list[Any]:
        """Calls a method of `vllm_extension.Extension` in each worker, which must not block: generation waits."""
        llm = self._alive()
        try:
            found: list[Any] = await self._while_core_lives(llm.collective_rpc(method, timeout=ASK_S, args=arguments))
        except EngineError:
            raise
        except Exception as e:  # whatever vLLM raises: its worker does not answer
            raise EngineError(f"vLLM does not answer {method}: {e}") from e
        return found

    async def score(self, ids: Sequence[int]) -> Floats:
        """Log-probs [N-1] at temperature 1, from the raw logits, of ids [N]. N must be below the window."""
        from vllm import SamplingParams

        params = SamplingParams(max_tokens=1, temperature=1.0, prompt_logprobs=0, flat_logprobs=True, detokenize=False)
        return logprobs_of((await self._request(ids, params)).prompt_logprobs, ids[1:])

    async def close(self) -> None:
        """Aborts running completions, ends the child, then the thread."""
        llm, self._llm = self._llm, None
        has_died = self._core is not None and self._core.ended.done()
        if self._core is not None:
            self._core.forget()
            self._core = None
        if self._thread is None:
            return
        loop = asyncio.get_running_loop()
        try:
            if llm is not None and not llm.errored and not has_died:
                await _abort_all(llm)
        finally:
            if llm is not None:
                await _stop_output_handler(llm)
                await loop.run_in_executor(self._thread, llm.shutdown)
                del llm
                gc.collect()  # its __del__ must not run during the interpreter's teardown
            if self._adapter:
                self._adapter.remove()
                self._adapter = None
            self._thread.shutdown(wait=False)
            self._thread = None

    async def _request(self, ids: Sequence[int], params: Any) -> Any:
        """The final output of one request. Raises EngineError, DataError."""
        return await self._while_core_lives(self._final(ids, params))

    async def _while_core_lives(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of what the engine's process is asked. Raises EngineError when that process ends first.

        vLLM fails what runs when its process dies, but a request that comes right after the death of an idle one waits
        for ever.
        """
        task = asyncio.ensure_future(work)
        try:
            if self._core is not None:
                both: set[asyncio.Future[Any]] = {task, self._core.ended}
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                if not task.done():
                    await asyncio.wait({task}, timeout=DEATH_S)
                    if not task.done():
                        raise EngineError("the vLLM engine died: its process has ended")
            return await task
        finally:
            task.cancel()

    async def _final(self, ids: Sequence[int], params: Any) -> Any:
        """The final output of one request. Turns vLLM's errors into EngineError and DataError."""
        llm = self._alive()
        from vllm import TokensPrompt
        from vllm.exceptions import VLLMValidationError

        prompt = TokensPrompt(prompt_token_ids=list(ids), cache_salt=self._salt)
        final, adapter = None, self._adapter.carried() if self._adapter else None
        try:
            async for output in llm.generate(prompt, params, f"r{next(self._request_ids)}", lora_request=adapter):
                final = output
        except VLLMValidationError as e:
            raise DataError(f"vLLM refuses a request of {len(ids)} tokens: {e}") from e
        except _deaths() as e:
            raise EngineError(f"the vLLM engine died: {e}") from e
        if final is None:
            raise EngineError("vLLM ended a request without an output")
        return final

    def _alive(self) -> Any:
        if self._llm is None or self._llm.errored:
            raise EngineError("the vLLM engine is dead or was never started")
        return self._llm

    def _new_salt(self) -> None:
        self._salt = f"load-{next(self._salts)}"

    def _make(self) -> None:
        """Blocking, in the engine's thread. Raises MachineError when vLLM cannot start here."""
        set_environment(self._cpu, self._cfg.sampler.threads)
        try:
            with warnings.catch_warnings():  # deprecations inside vLLM, which a user cannot avoid
                warnings.simplefilter("ignore")
                self._make_llm()
        except ImportError as e:
            raise MachineError(f"vllm cannot be imported: {e}; run ./launch/setup.sh") from e
        except Exception as e:
            raise EngineError(f"vLLM does not start with {self._arguments['model']}: {e}") from e

    def _make_llm(self) -> None:
        import torch
        from vllm.config.weight_transfer import WeightTransferConfig
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        if self._cpu:
            import torch._dynamo  # reads TORCH_COMPILE_DISABLE once, perhaps before it was set

            torch._dynamo.config.disable = True
            torch.set_num_threads(self._cfg.sampler.threads)
        arguments = AsyncEngineArgs(
            **(self._arguments | ({} if self._cpu else self._card_arguments())),
            worker_extension_cls=EXTENSION,
            weight_transfer_config=WeightTransferConfig(backend=BACKEND),
        )
        config = arguments.create_engine_config()
        if self._cpu:  # vLLM has just set "spawn"; a forked child inherits the imports
            os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "fork"
        # Not returned: an import error that a library keeps would keep these frames, and the engine in them, alive.
        self._llm = AsyncLLM.from_vllm_config(config, disable_log_stats=True)

    def _card_arguments(self) -> dict[str, Any]:
        """What depends on the card, which vLLM's platform describes without a CUDA context in this process."""
        from vllm.platforms import current_platform

        card_bytes = current_platform.get_device_total_memory()
        return gpu_arguments(self._cfg, self._info, card_bytes, shared=is_shared_card(os.environ))


class _CoreEnd:
    """The end of the engine's process, as a future of the loop that makes it."""

    def __init__(self, pid: int) -> None:
        """Raises EngineError when the process has ended already."""
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        try:
            self._descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            raise EngineError("the vLLM engine died as it started") from None
        self._loop.add_reader(self._descriptor, self._end)

    def forget(self) -> None:
        """Stops watching."""
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def _end(self) -> None:
        self.forget()
        if not self.ended.done():
            self.ended.set_result(None)


def _seed_of(settings: GenerateSettings) -> int:
    """The seed of one request. It fixes the random numbers; the logits still depend on what decodes beside it."""
    return int(np.random.SeedSequence(settings.seed).generate_state(1, np.uint64)[0] >> 1)


def _update(source: Path | Staged) -> dict[str, str]:
    """What `vllm_extension.FileUpdate` is made of."""
    return {"path": str(source)} if isinstance(source, Path) else {"ticket": source.ticket}


def _deaths() -> tuple[type[Exception], ...]:
    """The errors that vLLM raises when its engine is dead."""
    from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

    return EngineDeadError, EngineGenerateError


async def _abort_all(llm: Any) -> None:
    """Ends all requests. When that fails, the shutdown that follows ends the child all the same."""
    gone: tuple[type[Exception], ...] = (TimeoutError, *_deaths())
    try:
        async with asyncio.timeout(CLOSE_S):
            await llm.pause_generation(mode="abort", clear_cache=False)
    except gone as e:
        log.warning("vLLM did not abort what ran", error=repr(e))


async def _stop_output_handler(llm: Any) -> None:
    """Ends the task that reads outputs. It would log the end of the child as a death."""
    if llm.output_handler is not None:
        llm.output_handler.cancel()
        await asyncio.wait([llm.output_handler], timeout=CLOSE_S)


def logprobs_of(flat: Any, tokens: Sequence[int]) -> Floats:
    """The log-probs [T] of tokens [T] from vLLM's FlatLogprobs with one entry a token.

    The first token of a prompt has none. Raises EngineError when the entries are not those of the tokens.
    """
    if list(flat.token_ids) != list(tokens):
        raise EngineError(
            f"vLLM gave log-probs of {len(flat.token_ids)} tokens, and not those of the {len(tokens)} asked for"
        )
    return np.asarray(flat.logprobs, dtype=np.float32)


def versions_of(spans: Any, num_tokens: int) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    """Turns spans (version, start, end) of vLLM into one version for each token, [T].

    Raises EngineError when the spans do not cover every token.
    """
    versions = np.full(num_tokens, -1, dtype=np.int32)
    for span in spans or ():
        versions[span.start : span.end] = int(span.version)
    if (versions < 0).any():
        raise EngineError(f"vLLM labelled {int((versions >= 0).sum())} of {num_tokens} tokens with a version: {spans}")
    return versions
