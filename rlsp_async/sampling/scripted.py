"""An engine without a model, for tests: completions from a script or from a seed, at a chosen latency.

    ScriptedEngine(script=lambda prompt_ids: [7, 8, 2])      always the same answer
    ScriptedEngine(seed=3, vocab=(3, 100), length=(4, 12))   random tokens, the same for the same seed and order;
                                                             those of a request with a seed follow from that alone

Tokens appear one by one over `latency_s`, so a swap of the weights in the middle of a completion shows in the versions
as with a real engine. `wrong_by` is added to every score, so that a probe fails.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from rlsp_async.columns import Floats, floats, ints
from rlsp_async.errors import EngineError
from rlsp_async.messages import Invite, WeightsRef
from rlsp_async.sampling.engine import Completion, GenerateSettings, Staged
from rlsp_async.weights.receive import Progress, Receiver

Script = Callable[[Sequence[int]], Sequence[int]]


class ScriptedEngine:
    """Satisfies `Engine`. `loaded` lists (path, version) of every load; `fail_next` kills the next generate."""

    name = "scripted"

    def __init__(
        self,
        *,
        script: Script | None = None,
        seed: int = 0,
        vocab: tuple[int, int] = (3, 100),
        length: tuple[int, int] = (4, 12),
        latency_s: float = 0.0,
        window: int = 512,
    ) -> None:
        self.window = window
        self.latency_s = latency_s
        self.wrong_by = 0.0
        self.fail_next = False
        self.num_starts = 0
        self.loaded: list[tuple[Path | Staged, int]] = []
        self._receiver = Receiver()
        self._probe_scores: dict[tuple[int, ...], Floats] = {}
        self._script = script
        self._random = random.Random(seed)
        self._vocab, self._length = vocab, length
        self._version = 0
        self._errored = False

    @property
    def version(self) -> int:
        """Version of the last load; 0 after a start."""
        return self._version

    @property
    def errored(self) -> bool:
        """Whether the engine was killed or closed."""
        return self._errored

    async def start(self) -> None:
        """Starts at version 0 and counts the start."""
        self._version, self._errored = 0, False
        self.num_starts += 1

    async def generate(self, prompt_ids: Sequence[int], settings: GenerateSettings) -> Completion:
        """Plays the script, token by token, cut at `max_new_tokens` or after a stop id."""
        self._check()
        ids, finish = self._play(prompt_ids, settings)
        versions = []
        for _ in ids:
            if self.latency_s:
                await asyncio.sleep(self.latency_s / len(ids))
            self._check()
            versions.append(self._version)
        logprobs = np.full(len(ids), -0.5 / settings.temperature, dtype=np.float32)
        return Completion(
            token_ids=np.asarray(ids, dtype=np.int32),
            logprobs=logprobs,
            versions=np.asarray(versions, dtype=np.int32),
            finish="stop" if finish else "length",
        )

    async def load_weights(self, source: Path | Staged, version: int) -> None:
        """Records the load; no file is read."""
        self._check()
        if isinstance(source, Staged):
            self._receiver.take(source.ticket)
        self.loaded.append((source, version))
        self._version = version

    def weights_loaded(self, ref: WeightsRef) -> None:
        """Remembers the probe's own values as the scores of its ids, because there is no model to compute them with."""
        self._probe_scores[tuple(ints(ref.probe.ids).tolist())] = floats(ref.probe.logprobs)

    async def live_total(self) -> int | None:
        """None: there are no parameters."""
        return None

    async def receive_begin(self, invite: Invite) -> None:
        """Receives for real, in a thread."""
        self._check()
        await asyncio.to_thread(self._receiver.begin, invite)

    async def receive_poll(self) -> list[Progress]:
        """How far that is."""
        self._check()
        return [self._receiver.poll()]

    async def receive_stop(self) -> None:
        """Ends it."""
        await asyncio.to_thread(self._receiver.stop)

    async def score(self, ids: Sequence[int]) -> Floats:
        """The probe's log-probs for the probe's ids, -1 for each token of other ids; plus `wrong_by`."""
        self._check()
        known = self._probe_scores.get(tuple(ids))
        scores = np.full(len(ids) - 1, -1.0, dtype=np.float32) if known is None else known
        return scores + np.float32(self.wrong_by)

    async def close(self) -> None:
        """Ends the engine, as `kill` does, and what it receives."""
        self._errored = True
        await asyncio.to_thread(self._receiver.close)

    def kill(self) -> None:
        """Makes every further call raise EngineError, as when the process of an engine dies."""
        self._errored = True

    def _play(self, prompt_ids: Sequence[int], settings: GenerateSettings) -> tuple[list[int], bool]:
        if self._script is not None:
            ids = list(self._script(prompt_ids))
        else:
            draw = random.Random(repr(settings.seed)) if settings.seed else self._random
            ids = [draw.randrange(*self._vocab) for _ in range(draw.randint(*self._length))]
            ids += settings.stop_ids[:1]
        stops = [at for at, token in enumerate(ids) if token in settings.stop_ids]
        ids = ids[: stops[0] + 1] if stops else ids
        return ids[: settings.max_new_tokens], bool(stops) and len(ids) <= settings.max_new_tokens

    def _check(self) -> None:
        if self.fail_next:
            self.fail_next, self._errored = False, True
        if self._errored:
            raise EngineError("the scripted engine is dead")
