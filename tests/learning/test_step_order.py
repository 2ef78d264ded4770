"""Batches that arrive out of order are trained in order."""

import asyncio
from concurrent.futures import Future

import pytest

from rlsp_async.errors import MachineError, MessageError
from rlsp_async.learning.step_order import StepOrder, until_failed
from rlsp_async.messages import Batch, StepReport, TrainJob


def job(step: int) -> TrainJob:
    return TrainJob(batch=Batch(stage="rlsp", step=step, groups=[]))


class Counting:
    """A learner that trains each job at once and records its step."""

    def __init__(self) -> None:
        self.steps = [0]

    async def begin(self, job: TrainJob) -> asyncio.Future[StepReport]:
        await asyncio.sleep(0.01)
        self.steps.append(job.batch.step)
        report: asyncio.Future[StepReport] = asyncio.get_running_loop().create_future()
        report.set_result(StepReport(step=job.batch.step))
        return report


async def test_a_batch_that_overtook_another_waits_for_it():
    learner = Counting()
    in_order = StepOrder(learner.begin, lambda: learner.steps[-1], bound_s=5.0)
    late = [asyncio.create_task(in_order(job(step))) for step in (3, 2)]
    await asyncio.sleep(0.05)
    assert learner.steps == [0]
    await in_order(job(1))
    await asyncio.gather(*late)
    assert learner.steps == [0, 1, 2, 3]


async def test_a_step_that_never_comes_is_not_waited_for_for_ever_and_is_nobodys_fault():
    """MessageError becomes Failed of kind `returned`, which the hub charges to no budget."""
    learner = Counting()
    with pytest.raises(MessageError, match="step 2 waited 0 s for step 1, which never came"):
        await StepOrder(learner.begin, lambda: 0, bound_s=0.02)(job(2))


async def test_a_learner_that_works_ends_when_a_write_beside_it_fails():
    failed: Future[None] = Future()
    cancelled = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(None, failed.set_exception, MachineError("disk full"))
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    with pytest.raises(MachineError, match="disk full"):
        await asyncio.wait_for(until_failed(work(), failed), 10)
    assert cancelled.is_set()


async def test_a_learner_that_works_ends_as_its_work_ends():
    async def work(error: str = "") -> None:
        if error:
            raise MachineError(error)

    await until_failed(work(), Future())
    with pytest.raises(MachineError, match="no hub"):
        await until_failed(work("no hub"), Future())
