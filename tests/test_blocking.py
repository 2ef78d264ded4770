"""Blocking calls where an event loop runs already, and their interruption."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest

from rlsp_async import api, blocking


async def double(number: int) -> int:
    await asyncio.sleep(0)
    return 2 * number


def in_loop(work: Callable[[], Any]) -> Any:
    """Calls a function as a notebook's cell is called: by a loop that runs in the main thread and handles no signals."""

    async def cell() -> Any:
        return work()

    loop, before = asyncio.new_event_loop(), signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return loop.run_until_complete(cell())
    finally:
        signal.signal(signal.SIGINT, before)  # a shell starts jobs in the background with SIGINT ignored
        loop.close()


def interrupt_main() -> None:
    ident = threading.main_thread().ident
    assert ident is not None
    signal.pthread_kill(ident, signal.SIGINT)


def test_a_coroutine_runs_outside_and_inside_of_a_loop_and_in_a_thread() -> None:
    assert blocking.run(double(3)) == 6
    assert in_loop(lambda: blocking.run(double(4))) == 8
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(blocking.run(double(5))))
    thread.start()
    thread.join(20)
    assert found == [10]


def test_errors_come_back_to_the_caller() -> None:
    async def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        in_loop(lambda: blocking.run(fail()))
    with pytest.raises(SystemExit):
        in_loop(lambda: blocking.call(leave, lambda: None))


def leave() -> None:
    raise SystemExit(3)


def test_an_interrupt_cancels_the_coroutine() -> None:
    ended: list[str] = []

    async def patient() -> None:
        try:
            asyncio.get_running_loop().call_soon(interrupt_main)
            await asyncio.sleep(30)
        finally:
            ended.append("cleaned up")

    with pytest.raises(KeyboardInterrupt):
        in_loop(lambda: blocking.run(patient()))
    assert ended == ["cleaned up"]


def test_an_interrupt_is_handed_to_a_function_which_ends_in_its_own_way() -> None:
    asked = threading.Event()

    def work() -> str:
        interrupt_main()
        assert asked.wait(20)
        return "ended"

    assert in_loop(lambda: blocking.call(work, asked.set)) == "ended"


def test_answers_are_graded_in_a_notebook() -> None:
    rows = [{"gold": "7", "response": "it is 7"}]
    (verdict,) = in_loop(lambda: api.grade(rows, verifier="regex", options={"pattern": "is (\\d+)"}, workers=1))
    assert verdict.status == "correct"
