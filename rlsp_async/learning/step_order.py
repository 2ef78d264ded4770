"""How the learner's service calls the learner: steps in their order, and until something beside training fails.

Steps are trained in increasing order even when their jobs arrive out of order: a lost job is sent again later, and then
arrives after the job that follows it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future

from rlsp_async.errors import MessageError
from rlsp_async.messages import StepReport, TrainJob


class StepOrder:
    """A handler that starts a step only when the step before it is in the weights."""

    def __init__(
        self, begin: Callable[[TrainJob], Awaitable[Awaitable[StepReport]]], step: Callable[[], int], bound_s: float
    ) -> None:
        """Takes what trains a job and gives its report later, the newest step in the weights, and the longest wait for
        the step before."""
        self._begin, self._step, self._bound_s = begin, step, bound_s
        self._changed = asyncio.Condition()

    async def __call__(self, job: TrainJob) -> StepReport:
        """Trains one batch when it is its step's turn; the next one may begin before the report is there.

        Ends early when it is cancelled (its lease was revoked).

        Args:
            job: the batch of a step.

        Returns:
            the report of the step.

        Raises:
            MessageError: the step before did not come in time. No worker is charged for that; the hub sends both again.
        """
        await self._wait_for_turn(job.batch.step)
        try:
            report = await self._begin(job)
        finally:
            async with self._changed:
                self._changed.notify_all()
        return await report

    async def _wait_for_turn(self, step: int) -> None:
        try:
            async with asyncio.timeout(self._bound_s), self._changed:
                await self._changed.wait_for(lambda: step <= self._step() + 1)
        except TimeoutError:
            raise MessageError(
                f"step {step} waited {self._bound_s:.0f} s for step {self._step() + 1}, which never came"
            ) from None


async def until_failed(work: Coroutine[None, None, None], failed: Future[None]) -> None:
    """Works until the work ends, or until what is written beside training fails (`Learner.failed`).

    Args:
        work: the work; cancelled, and waited for, when it has not ended.
        failed: done with the error.

    Raises:
        What the work raises, or the error.
    """
    working, failing = asyncio.ensure_future(work), asyncio.wrap_future(failed)
    try:
        await asyncio.wait({working, failing}, return_when=asyncio.FIRST_COMPLETED)
        (failing if failing.done() else working).result()
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
