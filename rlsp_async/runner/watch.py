"""Watches a run from outside: an observer's link to the hub, one `Status` a second.

    await watch(cfg, on_status)          # until it is cancelled

Used by `rlsp run`'s view; any number of observers may watch, none of them matters to the run.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from rlsp_async.config import RunConfig
from rlsp_async.messages import Status

PATIENCE_S = 24 * 3600.0
"""The watcher waits for a hub that is being started again; its supervisor ends it."""


async def watch(cfg: RunConfig, on_status: Callable[[Status], None]) -> None:
    """Hands every Status to `on_status`. Reconnects by itself; ends by cancelling, or MachineError after a day."""
    from rlsp_async.service import hub_address, limits_of
    from rlsp_async.wire.keyring import read_worker_keys
    from rlsp_async.wire.link import LinkSettings, WorkerHooks, WorkerLink

    who = LinkSettings(
        run=cfg.name, role="observer", worker=f"observer-{os.getpid()}", give_up_s=PATIENCE_S, limits=limits_of(cfg)
    )
    keys = read_worker_keys(cfg.replay.keys, who.role, who.worker)
    await WorkerLink(who, lambda: hub_address(cfg), WorkerHooks(on_status=on_status), keys).run()
