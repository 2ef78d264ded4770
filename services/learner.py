"""Learner process: model, optimizer and checkpoints; one batch at a time on one named thread.

With a credit of 2 the next batch is already here when one is done, if the lag allows it."""

from rlsp_async.config import RunConfig
from rlsp_async.service import Service, in_thread, serve


async def main(cfg: RunConfig, service: Service) -> None:
    from rlsp_async.learning.learner import Learner  # after the arguments are read: torch takes seconds to import
    from rlsp_async.learning.turns import Turns

    learner = Learner(cfg, model_dir=cfg.directory / "model", run_dir=cfg.directory, incarnation=service.incarnation)
    try:
        train = Turns(in_thread(learner.train, name="learner"), lambda: learner.step, bound_s=cfg.replay.lease_s)
        await service.work(train, credit=2, metrics=learner.metrics,
                           step=lambda: learner.step, info={"device": learner.device})
    finally:
        learner.on_stop()


if __name__ == "__main__":
    serve("learner", main)
