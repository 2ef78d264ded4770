"""Replay process, the hub: one ROUTER socket, the ledger and its journal."""

import gc

from rlsp_async.config import RunConfig
from rlsp_async.messages import Status
from rlsp_async.service import Service, keep_results, keep_settings, limits_of, serve

GARBAGE_AT = 10_000
"""Objects made before the collector looks for cycles. The hub makes thousands a second and none in a cycle; Python's
own 700 takes a tenth of its time."""


async def main(cfg: RunConfig, service: Service) -> None:
    from rlsp_async.replay.server import ReplayServer  # after the arguments are read
    from rlsp_async.wire.keyring import read_hub_keys
    from rlsp_async.wire.router import Router

    gc.set_threshold(GARBAGE_AT)

    def finished(status: Status) -> None:
        if not service.is_supervised:  # a supervisor writes the report itself
            keep_results(cfg, status)
            print(f"rlsp {service.worker}: {status.message}; the report is in {cfg.directory}/report.html", flush=True)

    server = ReplayServer(cfg, on_finished=finished, stays=service.stays)
    service.on_drain(server.stop)
    keys = read_hub_keys(cfg.replay.keys)
    if not service.is_supervised:
        keep_settings(cfg)
    await server.run(lambda: Router(limits_of(cfg), keys))


if __name__ == "__main__":
    serve("replay", main)
