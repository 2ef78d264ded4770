"""The leases a worker holds, from Work to Ack. Pure.

    offered --take--> running --finish--> unacked --ack--> forgotten
                         |                   |
                         +---> void                     Revoke, or a Welcome that does not name it

What is finished is said until its Ack, whatever became of the lease: the hub tells a result that it wants from one that
comes late.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Literal

Taken = Literal["run", "running", "finished", "over", "ended"]

ENDED_KEPT = 1024


class LeaseBook:
    """At most `credit` leases run at once. A finished one keeps its Done as bytes until the hub has committed it."""

    def __init__(self, credit: int) -> None:
        self.credit = credit
        self.keys: dict[int, int] = {}
        """Of each lease held, its group id or step."""
        self.running: set[int] = set()
        self.unacked: dict[int, bytes] = {}
        self._ended: deque[int] = deque(maxlen=ENDED_KEPT)

    def take(self, lease: int, key: int = 0) -> Taken:
        """What to do with a Work: run it; nothing, it is running; say its Done again; refuse it, above the credit;
        nothing, it came twice and has ended."""
        if lease in self.running:
            return "running"
        if lease in self.unacked:
            return "finished"
        if lease in self._ended:
            return "ended"
        if len(self.running) >= self.credit:
            return "over"
        self.running.add(lease)
        self.keys[lease] = key
        return "run"

    def finish(self, lease: int, done: bytes) -> bool:
        """Its Done is ready. False: the lease is void by now, say nothing."""
        if lease not in self.running:
            return False
        self.running.remove(lease)
        self.unacked[lease] = done
        return True

    def fail(self, lease: int) -> bool:
        """It ends with a Failed, which nobody acknowledges. False: the lease is void by now, say nothing."""
        if lease not in self.running:
            return False
        self.void(lease)
        return True

    def void(self, lease: int) -> None:
        """Acknowledged, or revoked while it ran: forget it. Idempotent."""
        self.running.discard(lease)
        self.unacked.pop(lease, None)
        self.keys.pop(lease, None)
        if lease not in self._ended:
            self._ended.append(lease)  # its Work may still come, or come again

    def held(self) -> list[int]:
        """What a Hello says: running and unacked, in order."""
        return sorted(self.running | self.unacked.keys())

    def reconcile(self, kept: Iterable[int]) -> list[int]:
        """A Welcome came: forget what runs and the hub does not keep; returns the forgotten, which must be stopped."""
        lost = sorted(self.running - set(kept))
        for lease in lost:
            self.void(lease)
        return lost
