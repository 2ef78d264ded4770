"""The torch engine: batched decoding with a KV cache in one named thread, for small models and machines without vLLM.

The event loop only posts to the thread's mailbox; only the thread touches the model and the batch. Between two decode
steps the thread takes what was posted: new rows, a swap of the weights, a score. So the version of a token is exact.
"""

from __future__ import annotations

import asyncio
import dataclasses
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import structlog
import torch

from rlsp_async.columns import Floats
from rlsp_async.config import RunConfig, load_lora
from rlsp_async.cuda import has_cuda
from rlsp_async.errors import ConfigError, DataError, EngineError, RlspError
from rlsp_async.messages import Invite, WeightsRef
from rlsp_async.model.info import ModelInfo, read_model_info
from rlsp_async.sampling.engine import Completion, GenerateSettings, Staged
from rlsp_async.sampling.torch_apart import GroupsApart
from rlsp_async.sampling.torch_batch import DecodeBatch, DecodeRow
from rlsp_async.sampling.torch_model import TorchModel
from rlsp_async.weights.receive import Progress, Receiver
from rlsp_async.weights.sums import live_total

T = TypeVar("T")

log = structlog.get_logger(__name__)


class _Call:
    """A call that the thread makes; its result or error goes to `future`."""

    def __init__(self, work: Callable[[], Any], future: asyncio.Future[Any]) -> None:
        self.work = work
        self.future = future


class _CloseRequest:
    """Asks the thread to end; the last item in a mailbox."""


class TorchEngine:
    """Satisfies `Engine`."""

    name = "torch"

    def __init__(self, cfg: RunConfig, model_dir: Path, seed: int) -> None:
        """Raises DataError or ConfigError when model and settings do not fit; starts nothing."""
        info = read_model_info(model_dir)
        self.window = info.context
        self._model_dir, self._seed = model_dir, seed
        self._threads = cfg.sampler.threads
        self._device = "cuda" if has_cuda() else "cpu"
        self._dtype = torch.float32 if cfg.model.dtype == "float32" else torch.bfloat16
        self._lora = load_lora(cfg.model)
        self._max_rows = _num_rows(cfg, info, self._device)
        self._mailbox: queue.SimpleQueue[DecodeRow | _Call | _CloseRequest] = queue.SimpleQueue()
        self._waiting: deque[DecodeRow] = deque()
        self._receiver = Receiver(device=self._device)
        self._batch: DecodeBatch | None = None
        self._apart: GroupsApart | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._errored = True

    @property
    def version(self) -> int:
        """Policy version that the next token is sampled from."""
        return self._batch.version if self._batch else 0

    @property
    def errored(self) -> bool:
        """Whether the thread has ended or was never started."""
        return self._errored

    async def start(self) -> None:
        """Starts the thread, which loads the model."""
        self._loop = asyncio.get_running_loop()
        self._mailbox, self._waiting, self._errored = queue.SimpleQueue(), deque(), False
        self._thread = threading.Thread(target=self._run, name="torch-engine", daemon=True)
        self._thread.start()
        try:
            await self._call(self._open)
        except BaseException:
            await self.close()
            raise

    async def generate(self, prompt_ids: Sequence[int], settings: GenerateSettings) -> Completion:
        """Samples one completion. Raises DataError when the prompt is empty or fills the window."""
        if len(prompt_ids) >= self.window or not prompt_ids:
            raise DataError(f"a prompt of {len(prompt_ids)} tokens is empty or fills the window of {self.window}")
        room = self.window - len(prompt_ids)
        if settings.max_new_tokens > room:
            settings = dataclasses.replace(settings, max_new_tokens=room)
        row = DecodeRow(tuple(prompt_ids), settings, ticket=asyncio.get_running_loop().create_future())
        self._post(row)
        await row.ticket
        return _completion(row)

    async def load_weights(self, source: Path | Staged, version: int) -> None:
        """Swaps all tensors, or all adapters, between two steps, or none of them and raises WeightsError."""
        await self._call(lambda: self._load(source, version))

    def weights_loaded(self, ref: WeightsRef) -> None:
        """Nothing is to be done: the model computes the probe."""

    async def live_total(self) -> int | None:
        """The total of the fused weights, between two steps; None with adapters, whose sums are made here."""
        return None if self._lora else await self._call(lambda: live_total(self._model.tensors()))

    async def receive_begin(self, invite: Invite) -> None:
        """Receives in a thread of its own, in this process."""
        await asyncio.to_thread(self._receiver.begin, invite)

    async def receive_poll(self) -> list[Progress]:
        """How far that is."""
        return [self._receiver.poll()]

    async def receive_stop(self) -> None:
        """Ends it."""
        await asyncio.to_thread(self._receiver.stop)

    async def score(self, ids: Sequence[int]) -> Floats:
        """Log-probs [N-1] at temperature 1 of ids [N]. Raises DataError when the ids exceed the window."""
        if len(ids) > self.window:
            raise DataError(f"{len(ids)} tokens cannot be scored in a window of {self.window}")
        scores = await self._call(lambda: self._opened().score(ids).cpu().numpy())
        return np.asarray(scores, dtype=np.float32)

    async def close(self) -> None:
        """Ends the thread after its current step."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._errored = True
        self._mailbox.put(_CloseRequest())
        await asyncio.to_thread(self._receiver.close)
        await asyncio.to_thread(thread.join)
        self._batch = self._apart = None

    async def _call(self, work: Callable[[], T]) -> T:
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._post(_Call(work, future))
        return await future

    def _post(self, item: DecodeRow | _Call) -> None:
        if self._errored:
            raise EngineError("the torch engine is dead or was never started")
        self._mailbox.put(item)
        if self._errored:  # the thread may have emptied the mailbox for the last time just before
            raise EngineError("the torch engine died")

    # --- in the thread ---------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def _run(self) -> None:
        """Consumes the mailbox, produces completions. Waits for an item when no row is live; ends when asked to."""
        torch.set_num_threads(self._threads)
        reason = "the torch engine was closed"
        try:
            while self._take_mail():
                self._decode_step()
        except Exception as e:  # translated: every caller gets it as EngineError
            log.exception("torch engine died")
            reason = f"the torch engine died: {type(e).__name__}: {e}"
        self._errored = True
        self._fail_all(reason)

    def _take_mail(self) -> bool:
        """Empties the mailbox; False when asked to end."""
        busy = bool(self._waiting or (self._batch and self._batch.live) or (self._apart and self._apart.is_busy))
        while True:
            try:
                item = self._mailbox.get(block=not busy)
            except queue.Empty:
                return True
            if isinstance(item, _CloseRequest):
                return False
            if isinstance(item, _Call):
                self._do(item)
            elif item.settings.together and self._apart:
                self._apart.add(item)
            else:
                self._waiting.append(item)
            busy = True

    def _decode_step(self) -> None:
        rows = self._batch
        if rows is None:
            return
        cancelled = [at for at, row in enumerate(rows.live) if row.ticket.cancelled()]
        if cancelled:
            rows.remove(cancelled)
        num = min(rows.num_free, len(self._waiting))
        if num:
            new = [self._waiting.popleft() for _ in range(num)]
            rows.admit([row for row in new if not row.ticket.cancelled()])
        done = rows.step() if rows.live else []
        if self._apart and self._apart.is_busy:
            done += self._apart.step(rows.version)
        if done:
            self._in_loop(lambda: _resolve_all(done))

    def _do(self, call: _Call) -> None:
        try:
            result = call.work()
        except RlspError as e:
            error = e
            self._in_loop(lambda: _reject(call.future, error))
        else:
            self._in_loop(lambda: _resolve(call.future, result))

    def _open(self) -> None:
        model = TorchModel(self._model_dir, self._dtype, self._device, self.window, self._lora)
        self._batch = DecodeBatch(model, self._max_rows, self._seed)
        self._apart = GroupsApart(lambda num_rows: DecodeBatch(model, num_rows, self._seed), self._max_rows)
        self._model = model

    def _load(self, source: Path | Staged, version: int) -> None:
        rows = self._opened()
        if isinstance(source, Path):
            self._model.load(source)
        else:
            self._model.load_tensors(dict(self._receiver.take(source.ticket)), f"version {version}")
        rows.version = version

    def _opened(self) -> DecodeBatch:
        assert self._batch is not None
        return self._batch

    def _fail_all(self, reason: str) -> None:
        """Fails every waiting caller, because the thread has ended."""
        live = self._batch.live if self._batch else ()
        apart = self._apart.rows() if self._apart else ()
        futures = [row.ticket for row in (*self._waiting, *live, *apart)]
        while True:
            try:
                item = self._mailbox.get_nowait()
            except queue.Empty:
                break
            if not isinstance(item, _CloseRequest):
                futures.append(item.ticket if isinstance(item, DecodeRow) else item.future)
        self._in_loop(lambda: _reject_all(futures, reason))

    def _in_loop(self, work: Callable[[], Any]) -> None:
        assert self._loop is not None
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(work)


def _resolve(future: asyncio.Future[Any], result: Any = None) -> None:
    if not future.done():
        future.set_result(result)


def _reject(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


def _resolve_all(rows: Sequence[DecodeRow]) -> None:
    for row in rows:
        _resolve(row.ticket)


def _reject_all(futures: Sequence[asyncio.Future[Any]], reason: str) -> None:
    for future in futures:
        _reject(future, EngineError(reason))


def _completion(row: DecodeRow) -> Completion:
    return Completion(
        token_ids=np.asarray(row.tokens, dtype=np.int32),
        logprobs=np.asarray(row.logprobs, dtype=np.float32),
        versions=np.asarray(row.versions, dtype=np.int32),
        finish="stop" if row.is_stopped else "length",
    )


def _num_rows(cfg: RunConfig, info: ModelInfo, device: str) -> int:
    """Rows that decode at once: at most `max_sequences`, and what the cache's memory holds at full length."""
    value_bytes = 4 if cfg.model.dtype == "float32" else 2
    budget = cfg.sampler.memory * (2**30 if device == "cpu" else torch.cuda.get_device_properties(0).total_memory)
    room = int(budget // (info.context * info.kv_values_per_token * value_bytes))
    if room < 1:
        raise ConfigError(f"sampler.memory = {cfg.sampler.memory} holds no sequence of {info.context} tokens: raise it")
    return min(cfg.sampler.max_sequences, room)
