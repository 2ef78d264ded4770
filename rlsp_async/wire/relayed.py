"""What a worker says to another worker through the hub: requests for weights, and their answers.

A message is not repeated here: it may be lost like any other one, and who needs an answer asks again.
"""

from __future__ import annotations

from collections.abc import Callable

from rlsp_async.messages import FromWorker, Relayed


class RelayedMessages:
    """Joins a link, which has the socket, and who speaks with the other worker. Used by the loop's thread alone."""

    def __init__(self, on_message: Callable[[Relayed], None]) -> None:
        """`on_message` is given each message that comes; it must not block."""
        self.on_message = on_message
        self._post: Callable[[FromWorker], None] | None = None

    def attach(self, post: Callable[[FromWorker], None]) -> None:
        """The link says how a message is sent."""
        self._post = post

    def send(self, message: Relayed) -> None:
        """Sends a message, or drops it while there is no connection."""
        if self._post is not None:
            self._post(message)
