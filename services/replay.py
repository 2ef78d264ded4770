"""Replay process, the hub: one ROUTER socket, the ledger and its journal."""

from rlsp_async.config import RunConfig
from rlsp_async.service import Service, limits_of, serve


async def main(cfg: RunConfig, service: Service) -> None:
    from rlsp_async.replay.server import ReplayServer  # after the arguments are read
    from rlsp_async.wire.keyring import hub_keys
    from rlsp_async.wire.router import Router

    server = ReplayServer(cfg)
    service.on_drain(server.stop)
    keys = hub_keys(cfg.replay.keys)
    await server.run(lambda: Router(limits_of(cfg), keys))


if __name__ == "__main__":
    serve("replay", main)
