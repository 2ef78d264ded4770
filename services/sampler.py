"""Sampler process: one inference engine, many groups in flight."""

from rlsp_async.config import RunConfig
from rlsp_async.service import Service, serve


async def main(cfg: RunConfig, service: Service) -> None:
    if not await service.has_work():
        return
    from rlsp_async.model import read_longest_prompt
    from rlsp_async.sampling.sampler import Sampler  # after the arguments are read: engines take seconds to import
    from rlsp_async.weights.probe import read_initial_probe

    longest, probe = read_longest_prompt(cfg.directory), read_initial_probe(cfg.directory)
    async with Sampler(cfg, cfg.directory / "model", service.worker, longest_prompt=longest, probe=probe) as sampler:
        await service.work(
            sampler.sample,
            credit=cfg.sampler.groups_in_flight,
            on_weights=sampler.load,
            metrics=sampler.metrics,
            info=sampler.info,
        )


if __name__ == "__main__":
    serve("sampler", main)
