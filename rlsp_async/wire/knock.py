"""A worker asks whether there is work at all, before it loads a model: is a hub there, and does its run go on?

    Knock --Ping before any Hello--> hub     Pong(known=False): the run goes on
                                             Drain(reason):     it is over, and the worker has nothing to do

The question costs the hub nothing: its socket answers, and no worker joins. It is repeated over new connections with
the back-off of `link.py` until a hub answers or the bound is over.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import Any

from rlsp_async.errors import MachineError
from rlsp_async.messages import ASKING, Drain, FromHub, Ping
from rlsp_async.wire.codec import encode
from rlsp_async.wire.keyring import Keys
from rlsp_async.wire.link import backoff_s, no_hub
from rlsp_async.wire.session import Session
from rlsp_async.wire.sockets import ConnectionLimits

QUEUE = 64


class Knock:
    """One question. `await Knock(...).ask()` returns why the run is over; empty: it goes on."""

    def __init__(
        self,
        worker: str,
        address: Callable[[], str | None],
        limits: ConnectionLimits,
        keys: Keys | None = None,
        give_up_s: float = 120.0,
    ) -> None:
        """`address` is asked before each connection; None means that the address is not known yet."""
        self._worker, self._address, self._limits, self._keys = worker, address, limits, keys
        self._give_up_s = give_up_s
        self._answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._session: Session | None = None
        self._obstacle = ""

    @property
    def is_answered(self) -> bool:
        """Whether a hub has answered."""
        return self._answer.done()

    @property
    def obstacle(self) -> str:
        """What stands between this worker and the hub, in words; empty before the first connection."""
        return self._session.obstacle if self._session is not None else self._obstacle

    async def ask(self) -> str:
        """Waits for an answer, at most `give_up_s`. Raises MachineError when no hub answers."""
        begun = time.monotonic()
        attempt = 0
        while True:
            address = self._address()
            left_s = begun + self._give_up_s - time.monotonic()
            if left_s <= 0:
                raise MachineError(no_hub(address, self._give_up_s, self._obstacle))
            if address is not None:
                await self._connect(address, min(self._limits.timeout_s, left_s))
                if self.is_answered:
                    return self._answer.result()
            await asyncio.sleep(min(left_s, backoff_s(attempt, self._limits.heartbeat_s, random.random())))
            attempt += address is not None

    async def _connect(self, address: str, bound_s: float) -> None:
        """One connection, until it is answered or the bound is over."""
        session = Session(address, f"{self._worker}/ask", QUEUE, self._limits, self._keys)
        self._session = session
        parts = [session.read(self._heard), session.write(), session.watch(), self._repeat(session)]
        tasks: list[asyncio.Future[Any]] = [asyncio.ensure_future(part) for part in parts]
        waits: list[asyncio.Future[Any]] = [self._answer, *tasks]
        try:
            await asyncio.wait(waits, timeout=bound_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            self._session, self._obstacle = None, session.obstacle
            session.close()
        for error in ended:
            if isinstance(error, Exception):
                raise error

    async def _repeat(self, session: Session) -> None:
        """Asks once a heartbeat, because a message may be lost; ends by cancelling."""
        while not session.lost.is_set():
            session.post(encode(Ping(state=ASKING)))
            await asyncio.sleep(self._limits.heartbeat_s)

    def _heard(self, message: FromHub) -> None:
        if not self._answer.done():
            self._answer.set_result(message.reason if isinstance(message, Drain) else "")
