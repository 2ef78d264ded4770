"""Blocking calls whose own event loop must not meet that of their caller, as in a notebook.

    blocking.run(coroutine)                    asyncio.run, also where a loop runs already
    blocking.call(function, interrupt)         a function that runs a loop of its own

Where a loop runs in the calling thread, the work is done in a new thread, and the caller waits for it. Ctrl-C, or the
interrupt button of a notebook, raises KeyboardInterrupt in the caller; it is handed on to the work, which ends in its
own way, and the caller gets the error with which it ended.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

T = TypeVar("T")

LOOK_S = 1.0
"""Seconds between two looks at whether the work has ended."""
START_S = 30.0
"""Longest time until the thread runs, after which an interrupt cannot be handed on."""


def is_in_loop() -> bool:
    """Whether an event loop runs in this thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def run(work: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine to its end; KeyboardInterrupt cancels it."""
    if not is_in_loop():
        return asyncio.run(work)
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[T]]] = Future()

    async def main() -> T:
        task = asyncio.current_task()
        assert task is not None
        started.set_result((asyncio.get_running_loop(), task))
        return await work

    def cancel() -> None:
        loop, task = started.result(START_S)
        loop.call_soon_threadsafe(task.cancel)

    try:
        return call(lambda: asyncio.run(main()), cancel)
    except (asyncio.CancelledError, CancelledError):
        raise KeyboardInterrupt from None


def call(function: Callable[[], T], interrupt: Callable[[], None]) -> T:
    """Calls a function here, or in a new thread where a loop runs here.

    Args:
        function: what is to be done; it may run an event loop of its own.
        interrupt: called for each KeyboardInterrupt of the waiting caller; asks the function to end.

    Returns: what the function returns. Raises: what it raises.
    """
    if not is_in_loop():
        return function()
    go = threading.Event()
    with ThreadPoolExecutor(1, thread_name_prefix="rlsp") as pool:
        future = pool.submit(_when_told, go, function)
        while True:
            try:
                go.set()
                while not future.done():
                    wait([future], LOOK_S)
                break
            except KeyboardInterrupt:
                interrupt()
    return future.result(LOOK_S)


def _when_told(go: threading.Event, function: Callable[[], T]) -> T:
    """Calls a function once its caller can hand interrupts on."""
    if not go.wait(START_S):
        raise KeyboardInterrupt
    return function()
