"""No wait without a bound, read from the source with `ast`.

A bare `await x.recv*() / wait() / get() / acquire() / ...` or `async with` a lock outlives its peer. It must stand in
an `asyncio.timeout`, carry a `timeout=`, or be in ALLOWED with what else ends it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.test_layers import sources

WAITS = frozenset(
    {
        "recv",
        "recv_multipart",
        "recv_string",
        "receive",
        "sock_recv",
        "wait",
        "get",
        "acquire",
        "join",
        "communicate",
        "read",
        "readline",
        "readexactly",
        "connect",
        "poll",
    }
)
LOCKS = ("lock", "changing", "starting", "condition", "semaphore", "changed")

ALLOWED = {
    (
        "rlsp_async.wire.session",
        "read",
    ): "the one reader of a connection; cancelled by link._run_session, whose heartbeat "
    "returns after timeout_s of silence",
    (
        "rlsp_async.wire.session",
        "write",
    ): "the one writer of a connection; cancelled with it, and a full outbox ends it",
    ("rlsp_async.wire.link", "_run_session"): "ends when one of its tasks does; the heartbeat does after timeout_s",
    ("rlsp_async.wire.link", "_leave"): "waits for a stop as long as the connection lives; cancelled with it",
    ("rlsp_async.wire.loading", "run"): "waits for a version as long as the worker lives; a hub that has one says it "
    "again; cancelled by WorkerLink.run",
    ("rlsp_async.wire.router", "receive"): "the hub may hear nobody; its ticker runs beside it and cancels it",
    ("rlsp_async.replay.server", "_serve"): "until the run is over; the watchdog ends a run that stalls (stall_s)",
    ("rlsp_async.replay.server", "_receive"): "the hub may hear nobody; its ticker runs beside it and cancels it",
    ("rlsp_async.replay.server", "room"): "until what waits is taken: one commit, whose disk errors raise",
    ("rlsp_async.replay.server", "take"): "the ticker adds something every TICK_S",
    (
        "rlsp_async.replay.server",
        "_feed",
    ): "until the hub moves; cancelled when the run is over; the watchdog bounds it",
    (
        "rlsp_async.learning.follower",
        "until_lost",
    ): "the life of a learner, or its building, which has bounds of its own",
    (
        "rlsp_async.learning.step_order",
        "until_failed",
    ): "the life of a learner: ends with its work or with a failure, and is cancelled KILL_S after the first signal",
    ("rlsp_async.service", "_supervise"): "the life of the process: cancelled KILL_S after the first signal",
    ("rlsp_async.runner.supervise", "_keep"): "the life of a process: stopped with SIGTERM, then SIGKILL after KILL_S",
    ("rlsp_async.verifying.pool", "verify"): "a checker comes back from `check`, which kills at its deadline",
    ("rlsp_async.verifying.pool", "start"): "the lock is held for one start, bounded by LOAD_S",
    ("rlsp_async.verifying.pool", "stop"): "of a process that was sent SIGKILL",
    ("rlsp_async.verifying.pool", "frame"): "both callers stand in a timeout: START_S and the verifier's deadline",
    ("rlsp_async.sampling.vllm_engine", "_while_core_lives"): "a request takes as long as its tokens; it ends with the "
    "engine's process",
    ("rlsp_async.sampling.sampler", "sample"): "the lock is held for one load of weights, bounded by loading.LOAD_S",
    ("rlsp_async.sampling.sampler", "load"): "bounded by its caller, loading.LOAD_S",
    ("rlsp_async.learning.step_order", "__call__"): "the condition is held only while its waiters are woken",
    ("rlsp_async.wire.auth", "_serve"): "the authenticator may hear nobody; cancelled when the router closes",
    ("rlsp_async.chaos.harness", "_keep"): "the life of `rlsp run`, which the harness kills when its time is up",
    ("rlsp_async.chaos.proxy", "run"): "the proxy may hear nobody; cancelled by the harness",
    ("rlsp_async.chaos.proxy", "_read"): "the proxy may hear nobody; cancelled with its connection",
    ("rlsp_async.sampling.sampler", "_ready"): "the lock is held for one load of weights, bounded by loading.LOAD_S",
}
"""(module, function) -> what ends the wait."""


def bare_waits(name: str, source: str) -> Iterator[tuple[str, str, int]]:
    """(module, function, line) of every wait without a bound."""
    tree = ast.parse(source)
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(tree):
        is_wait = isinstance(node, ast.Await) and isinstance(node.value, ast.Call) and _waits(node.value)
        is_lock = isinstance(node, ast.AsyncWith) and any(_locks(item.context_expr) for item in node.items)
        if (is_wait or is_lock) and not _is_bounded(node, parents):
            function = _function(node, parents)
            yield name, function, node.lineno  # type: ignore[attr-defined]


def _waits(call: ast.Call) -> bool:
    is_named = isinstance(call.func, ast.Attribute) and call.func.attr in WAITS
    return is_named and not any(keyword.arg in ("timeout", "flags") for keyword in call.keywords)


def _locks(expression: ast.expr) -> bool:
    return isinstance(expression, ast.Attribute | ast.Name) and ast.unparse(expression).lower().endswith(LOCKS)


def _is_bounded(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> bool:
    """Within its function an `async with asyncio.timeout(...)` stands around it."""
    while node in parents and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        if isinstance(node, ast.AsyncWith) and any("timeout(" in ast.unparse(i.context_expr) for i in node.items):
            return True
        node = parents[node]
    return False


def _function(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> str:
    while node in parents:
        node = parents[node]
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            return node.name
    return ""


def test_every_wait_has_a_bound_or_says_what_ends_it():
    found = [wait for name, source in sources() for wait in bare_waits(name, source)]
    unbounded = [f"{name}:{line} {function}" for name, function, line in found if (name, function) not in ALLOWED]
    assert not unbounded, "\n".join(unbounded)


def test_nothing_is_allowed_that_is_not_there():
    found = {(name, function) for name, source in sources() for name, function, _ in bare_waits(name, source)}
    assert set(ALLOWED) - found == set()


@pytest.mark.parametrize(
    "source",
    [
        "async def f(s):\n    await s.recv_multipart()\n",
        "async def f(e):\n    await e.wait()\n",
        "async def f(q):\n    await q.get()\n",
        "async def f(self):\n    async with self._lock:\n        pass\n",
        "async def f(tasks):\n    await asyncio.wait(tasks)\n",
        "async def f(e):\n    async with asyncio.timeout(1):\n        async def g():\n            await e.wait()\n",
    ],
)
def test_a_planted_wait_is_found(source: str):
    assert list(bare_waits("m", source))


@pytest.mark.parametrize(
    "source",
    [
        "async def f(e):\n    async with asyncio.timeout(1):\n        await e.wait()\n",
        "async def f(tasks):\n    await asyncio.wait(tasks, timeout=3)\n",
        "async def f(self):\n    async with asyncio.timeout(1), self._lock:\n        pass\n",
        "async def f():\n    await asyncio.sleep(1)\n",
    ],
)
def test_a_bounded_wait_is_not_accused(source: str):
    assert not list(bare_waits("m", source))
