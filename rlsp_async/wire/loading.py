"""New weights at a worker: one load at a time, always of the newest version; older versions that wait are skipped."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog

from rlsp_async.errors import EngineError, WeightsDelayed, WeightsError
from rlsp_async.messages import Loaded, Rejected, WeightsRef

LOAD_S = 600.0
"""A version that takes longer to load is refused: the disk or the engine hangs."""
DELAYS = 3
"""A version that did not arrive this often is refused."""

log = structlog.get_logger("wire")

OnWeights = Callable[[WeightsRef], Awaitable[float]]
"""Loads a version and returns the largest error of its probe. Raises WeightsError, EngineError, or
WeightsDelayed: the version has not arrived, and the one that is served stays."""


class WeightLoader:
    """Consumes references by `offer`; produces Loaded or Rejected by `answer`."""

    def __init__(self, on_weights: OnWeights, answer: Callable[[Loaded | Rejected], None]) -> None:
        self.loading = False
        self._on_weights = on_weights
        self._answer = answer
        self._wanted: WeightsRef | None = None
        self._loaded: tuple[WeightsRef, Loaded] | None = None
        self._delayed: tuple[WeightsRef | None, int] = None, 0
        """The version that did not arrive, and how often."""
        self._newest = (0, -1, 0)
        """(start of the hub, version, start of the learner) of the newest offer."""
        self._woken = asyncio.Event()

    @property
    def version(self) -> int:
        """The version that is served; -1 while none is."""
        return self._loaded[0].version if self._loaded else -1

    @property
    def made_by(self) -> int:
        """Incarnation of the learner that made the served version."""
        return self._loaded[0].incarnation if self._loaded else 0

    def offer(self, ref: WeightsRef, hub: int = 0) -> None:
        """Asks for a version. A version that is served already is answered without a load: a restarted hub must know.

        An offer that is older than the newest one is skipped. An older version is accepted only from a newer
        incarnation of the hub, `hub`, which may have lost the tail of its journal.
        """
        order = (max(hub, self._newest[0]), ref.version, ref.incarnation)
        if order < self._newest:
            return
        self._newest = order
        self._wanted = ref
        self._woken.set()

    async def run(self) -> None:
        """Waits for a reference; unblocked by `offer`. Ends only by cancelling or by a bug in `on_weights`."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            ref, self._wanted = self._wanted, None
            if ref is None:
                continue
            if self._loaded is not None and self._loaded[0] == ref:
                self._answer(self._loaded[1])
            else:
                await self._load(ref)

    async def _load(self, ref: WeightsRef) -> None:
        self.loading, start = True, time.monotonic()
        try:
            async with asyncio.timeout(LOAD_S):
                error = await self._on_weights(ref)
        except WeightsDelayed as e:
            self._delay(ref, str(e))
        except (WeightsError, EngineError, TimeoutError) as e:
            self._loaded = None
            reason = str(e) or f"not loaded within {LOAD_S:g} s"
            self._answer(Rejected(version=ref.version, reason=reason))
        else:
            self._delayed = None, 0
            loaded = Loaded(version=ref.version, seconds=time.monotonic() - start, probe_error=error)
            self._loaded = (ref, loaded)
            self._answer(loaded)
        finally:
            self.loading = False

    def _delay(self, ref: WeightsRef, reason: str) -> None:
        """Keeps what is served and answers nothing: the next Ping names the older version, so the hub offers this one
        again. After DELAYS times it is refused."""
        known, num = self._delayed
        num = num + 1 if known == ref else 1
        self._delayed = ref, num
        log.warning("weights did not arrive", version=ref.version, serves=self.version, tries=num, reason=reason)
        if num >= DELAYS:
            self._loaded, self._delayed = None, (None, 0)
            self._answer(Rejected(version=ref.version, reason=f"it did not arrive {num} times: {reason}"))
