"""Sampler process: one inference engine, many groups in flight."""

import asyncio

from rlsp_async.config import RunConfig
from rlsp_async.processes import kill_children
from rlsp_async.service import Service, serve
from rlsp_async.wire.relayed import RelayedMessages


async def main(cfg: RunConfig, service: Service) -> None:
    if not await service.has_work():
        return
    from rlsp_async.model import read_longest_prompt
    from rlsp_async.sampling.sampler import Sampler  # after the arguments are read: engines take seconds to import
    from rlsp_async.weights.probe import read_initial_probe

    longest, probe = read_longest_prompt(cfg.directory), read_initial_probe(cfg.directory)
    sampler = Sampler(cfg, cfg.directory / "model", service.worker, longest_prompt=longest, probe=probe)
    starting = asyncio.ensure_future(sampler.__aenter__())
    stopping = asyncio.ensure_future(service.stopping.wait())
    await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        kill_children()  # an engine that starts listens to nobody, for half a minute on a busy machine
        return
    starting.result()
    relayed = RelayedMessages(sampler.heard)
    sampler.connect(relayed.send)
    try:
        await service.work(
            sampler.sample,
            credit=cfg.sampler.groups_in_flight,
            on_weights=sampler.load,
            metrics=sampler.metrics,
            info=sampler.info,
            relayed=relayed,
        )
    finally:
        await sampler.__aexit__(None, None, None)


if __name__ == "__main__":
    serve("sampler", main)
