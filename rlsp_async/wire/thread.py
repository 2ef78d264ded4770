"""One named thread for blocking work, so that heartbeats go on while a torch step or a file write runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

A = TypeVar("A")
R = TypeVar("R")


def in_thread(function: Callable[[A], R], name: str = "work") -> Callable[[A], Awaitable[R]]:
    """`function` as a handler that can be awaited; its calls run one after the other on one thread called NAME_0.

    A cancelled call that already runs is not interrupted: its result is dropped and the next call waits for it.
    """
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    async def call(argument: A) -> R:
        return await asyncio.get_running_loop().run_in_executor(pool, function, argument)

    return call
