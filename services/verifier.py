"""Verifier process: a pool of killable worker processes that judge answers."""

from rlsp_async.config import RunConfig
from rlsp_async.service import Service, serve


async def main(cfg: RunConfig, service: Service) -> None:
    if not await service.has_work():
        return
    from rlsp_async.verifying.pool import VerifierPool  # after the arguments are read

    async with VerifierPool(cfg) as pool:
        await service.work(pool.verify, credit=cfg.verifier.groups_in_flight, metrics=pool.metrics)


if __name__ == "__main__":
    serve("verifier", main)
