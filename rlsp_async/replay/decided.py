"""What the hub has decided and the disk does not know yet: the hub goes on deciding while a commit is under way.

    hub --> add --> [ effects in order ] --> take --> commit, send      one commit at a time, in order

Nobody hears of a decision before its own commit, which follows those of all decisions it was built on; a crash loses
an end of what nobody has heard. At most `most` messages wait, so that a slow disk makes commits larger, not memory.
"""

from __future__ import annotations

import asyncio

from rlsp_async.replay.state import Effects


class CommitQueue:
    """Filled by everyone who asks the hub, emptied by one task."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting = Effects()
        self._num_messages = 0
        self._added = asyncio.Event()
        self._taken = asyncio.Event()

    def add(self, effects: Effects, num_messages: int = 0) -> None:
        """What followed from so many messages; 0: not of a message, always taken."""
        self._waiting.extend(effects)
        self._num_messages += num_messages
        self._added.set()

    @property
    def is_empty(self) -> bool:
        """Whether everything has been taken."""
        return not self._added.is_set()

    async def room(self) -> int:
        """How many messages may be decided now, at least one; unblocked by `take`."""
        while self._num_messages >= self._most:
            self._taken.clear()
            await self._taken.wait()
        return self._most - self._num_messages

    async def take(self) -> Effects:
        """All that waits; unblocked by `add`."""
        await self._added.wait()
        self._added.clear()
        taken, self._waiting, self._num_messages = self._waiting, Effects(), 0
        self._taken.set()
        return taken
