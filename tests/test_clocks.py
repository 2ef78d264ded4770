"""Who reads the wall clock, from the source with `ast`: only for people and for peers outside. Orders and ages that
decide come from counters and from monotonic clocks, because a wall clock may be set back or ahead at any moment."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.test_layers import sources
from tests.test_waits import _function

MODULES = {
    "time": {"time", "time_ns", "localtime", "gmtime", "ctime", "asctime", "strftime", "CLOCK_REALTIME", "mktime"},
    "datetime": {"now", "utcnow", "today", "fromtimestamp"},
}
TIMES_OF_FILES = {"st_mtime", "st_mtime_ns", "st_ctime", "st_ctime_ns", "st_atime", "getmtime", "getctime"}

ALLOWED = {
    "rlsp_async.replay.journal": "when the run began, and its age after a reboot, never below that of its newest record",
    "rlsp_async.cli.clean": "what is older than a day is listed; a person removes it",
    "rlsp_async.weights.leftovers": "what is older than a day is listed; a person removes it",
    "rlsp_async.wire.auth": "whether a file has changed at all; not which is newer",
    "rlsp_async.verifying.judge.client": "Retry-After of a server may be a date",
    "rlsp_async.verifying.code.library": "the zone's file is read while files may be read",
    "rlsp_async.chaos.shifted.sitecustomize": "it is the wall clock of a process under test",
    "rlsp_async.chaos.harness": "when a fault was injected, for people",
}
"""Module -> why the wall clock is read."""


def wall_clocks(name: str, source: str) -> Iterator[tuple[str, str, int]]:
    """(module, function, line) of every look at a wall clock or at the time of a file."""
    tree = ast.parse(source)
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="time"), attr=attr):
                is_found = attr in MODULES["time"]
            case ast.Attribute(value=value, attr=attr):
                is_date = ast.unparse(value).split(".")[-1] in ("datetime", "date", "dt")
                is_found = attr in TIMES_OF_FILES or (is_date and attr in MODULES["datetime"])
            case ast.ImportFrom(module="time", names=names):
                is_found = any(one.name in MODULES["time"] for one in names)
            case _:
                is_found = False
        if is_found:
            yield name, _function(node, parents), node.lineno  # type: ignore[attr-defined]


def test_only_what_is_for_people_reads_the_wall_clock():
    found = [one for name, source in sources() for one in wall_clocks(name, source)]
    others = [f"{name}:{line} {function}" for name, function, line in found if name not in ALLOWED]
    assert not others, "\n".join(others)


def test_nothing_is_allowed_that_is_not_there():
    found = {name for name, source in sources() for _ in wall_clocks(name, source)}
    assert set(ALLOWED) - found == set()


@pytest.mark.parametrize(
    "source",
    [
        "def f():\n    return time.time()\n",
        "def f():\n    return time.time_ns()\n",
        "from time import time\n",
        "def f():\n    return datetime.datetime.now()\n",
        "def f():\n    return datetime.now(UTC)\n",
        "def f(p, q):\n    return p.stat().st_mtime > q.stat().st_mtime_ns\n",
        "def f(p):\n    return max(p, key=os.path.getmtime)\n",
        "def f():\n    return time.clock_gettime(time.CLOCK_REALTIME)\n",
    ],
)
def test_a_planted_look_is_found(source: str):
    assert list(wall_clocks("m", source))


def test_other_clocks_are_not_accused():
    assert not list(wall_clocks("m", "def f():\n    return time.monotonic() + time.perf_counter() + t.time\n"))
