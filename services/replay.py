"""Replay process, the hub: one ROUTER socket, the ledger and its journal."""

import gc

from rlsp_async.config import RunConfig
from rlsp_async.service import Service, limits_of, serve

GARBAGE_AT = 10_000
"""Objects made before the collector looks for cycles. The hub makes thousands a second and none in a cycle; Python's
own 700 takes a tenth of its time."""


async def main(cfg: RunConfig, service: Service) -> None:
    from rlsp_async.replay.server import ReplayServer  # after the arguments are read
    from rlsp_async.wire.keyring import read_hub_keys
    from rlsp_async.wire.router import Router

    gc.set_threshold(GARBAGE_AT)
    server = ReplayServer(cfg)
    service.on_drain(server.stop)
    keys = read_hub_keys(cfg.replay.keys)
    await server.run(lambda: Router(limits_of(cfg), keys))


if __name__ == "__main__":
    serve("replay", main)
