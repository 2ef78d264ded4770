"""Learner process: model, optimizer and checkpoints; one batch at a time on one named thread.

With a credit of 2 the next batch has already arrived when one is done, if the lag allows it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from concurrent.futures import Future
from typing import TYPE_CHECKING

from rlsp_async.config import RunConfig
from rlsp_async.messages import StepReport, TrainJob
from rlsp_async.service import Service, hub_address, in_thread, keep_settings, serve

if TYPE_CHECKING:
    from rlsp_async.learning.learner import Learner


async def main(cfg: RunConfig, service: Service) -> None:
    if not await service.has_work():
        return
    if not service.is_supervised:
        keep_settings(cfg)
    # One thread builds and trains: torch's number of threads is a setting of the thread, and other numbers of threads
    # add up in another order.
    work = in_thread(lambda act: act(), name="learner")
    building = asyncio.ensure_future(work(lambda: _build(cfg, service.incarnation)))
    stopping = asyncio.ensure_future(service.stopping.wait())
    await asyncio.wait({building, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if not building.done():
        return  # stopped before it was there: nothing was trained
    learner: Learner = building.result()
    from rlsp_async.learning.learner import StepOrder, until_failed  # loaded by now, where the learner was built
    from rlsp_async.weights.serve import make_server

    server = make_server(cfg, service.worker, service.incarnation, lambda: hub_address(cfg))

    def claim() -> None:
        # Only a learner that the hub has taken in claims the files: one that it refuses must not stop the one at work.
        learner.claim(alone=not service.is_supervised)

    async def begin(job: TrainJob) -> Awaitable[StepReport]:
        report: Future[StepReport] = await work(lambda: learner.begin(job))
        # A revoked lease does not take back what was trained.
        return asyncio.shield(server.announced(asyncio.wrap_future(report)))

    in_order = StepOrder(begin, lambda: learner.step, bound_s=cfg.replay.lease_s)
    working = service.work(
        in_order,
        credit=2,
        metrics=learner.metrics,
        step=lambda: learner.step,
        info={"device": learner.device},
        on_welcome=claim,
        relayed=server.relayed,
    )
    try:
        await until_failed(working, learner.failed)
    finally:
        server.close()
        learner.on_stop()


def _build(cfg: RunConfig, incarnation: int) -> Learner:
    from rlsp_async.learning.learner import Learner  # torch takes seconds to import
    from rlsp_async.tokens import TokenizerCodec

    model_dir = cfg.directory / "model"
    codec = TokenizerCodec(model_dir, eos_ids=())
    return Learner(
        cfg, model_dir=model_dir, run_dir=cfg.directory, incarnation=incarnation, encode=codec.encode, claims=False
    )


if __name__ == "__main__":
    serve("learner", main)
