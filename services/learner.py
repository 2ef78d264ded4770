"""Learner process: model, optimizer and checkpoints; one batch at a time on one named thread.

With `learner.ranks` above 1 it is rank 0, which starts the others (learning/follower.py); as another rank of those that
somebody else has started it obeys rank 0 and meets no hub.

With a credit of 2 the next batch has already arrived when one is done, if the lag allows it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable
from concurrent.futures import Future
from importlib import import_module
from typing import TYPE_CHECKING

from rlsp_async.config import RunConfig
from rlsp_async.learning.step_order import StepOrder, until_failed
from rlsp_async.messages import StepReport, TrainJob
from rlsp_async.service import Service, hub_address, in_thread, keep_settings, serve

if TYPE_CHECKING:
    from rlsp_async.learning.follower import Followers
    from rlsp_async.learning.learner import Learner


async def main(cfg: RunConfig, service: Service) -> None:
    if os.environ.get("RANK", "0") != "0":  # somebody else has started the ranks, and this is not the first
        from rlsp_async.learning.follower import follow

        await in_thread(follow, name="learner")(cfg)
        return
    if not await service.has_work():
        return
    if not service.is_supervised:
        keep_settings(cfg)
    # One thread builds and trains: torch's number of threads is a setting of the thread, and other numbers of threads
    # add up in another order.
    work = in_thread(lambda act: act(), name="learner")
    followers: Followers = await work(lambda: import_module("rlsp_async.learning.follower").start(cfg, service.worker))
    building = asyncio.ensure_future(followers.until_lost(work(lambda: followers.lead(cfg, service.incarnation))))
    stopping = asyncio.ensure_future(service.stopping.wait())
    await asyncio.wait({building, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if not building.done():
        return  # stopped before it was there: nothing was trained
    learner: Learner = building.result()
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
        await followers.until_lost(until_failed(working, learner.failed))
    finally:
        server.close()
        if not followers.lost.done():
            learner.on_stop()


if __name__ == "__main__":
    serve("learner", main)
