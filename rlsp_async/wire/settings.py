"""Who a worker is, and how patient."""

from __future__ import annotations

import msgspec

from rlsp_async.messages import Role
from rlsp_async.wire.sockets import Limits


class LinkSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Who the worker is and how patient."""

    run: str
    role: Role
    worker: str
    credit: int = 1
    """Leases it works on at once."""
    incarnation: int = 0
    """Rises with each start of this worker."""
    limits: Limits = Limits()
    """Until the hub's Welcome says its own heartbeat_s and timeout_s."""
    give_up_s: float = 120.0
    """Without a hub for so long the worker ends."""
    drain_s: float = 30.0
    """How long leases may go on after a Drain; then they are returned."""
    info: dict[str, str] = {}
