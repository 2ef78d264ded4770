"""Steps in their order, whatever the order in which their batches arrive: one may be lost on the way, and come after
the one that follows it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from rlsp_async.errors import MessageError
from rlsp_async.messages import StepReport, TrainJob


class Turns:
    """A handler that starts a step only when the one before it is in the weights.

    Waits at most `bound_s` for that; then MessageError: nobody is to blame, and the hub sends both again. Ends early by
    cancelling (its lease was revoked).
    """

    def __init__(
        self, train: Callable[[TrainJob], Awaitable[StepReport]], step: Callable[[], int], bound_s: float
    ) -> None:
        self._train, self._step, self._bound_s = train, step, bound_s
        self._changed = asyncio.Condition()

    async def __call__(self, job: TrainJob) -> StepReport:
        """Trains one batch in its turn."""
        await self._turn(job.batch.step)
        try:
            return await self._train(job)
        finally:
            async with self._changed:
                self._changed.notify_all()

    async def _turn(self, step: int) -> None:
        try:
            async with asyncio.timeout(self._bound_s), self._changed:
                await self._changed.wait_for(lambda: step <= self._step() + 1)
        except TimeoutError:
            raise MessageError(
                f"step {step} waited {self._bound_s:.0f} s for step {self._step() + 1}, which never came"
            ) from None
