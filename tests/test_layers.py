"""Who may import whom, how long things may be, and what is never called: read from the source with `ast`.

One table (`ROWS`) gives every room its level, its shells and what it must not touch. A module imports its own level or
lower ones, never higher, and never in a circle. The four rooms never import one another. Each check is a function
from (module name, source) to sentences, so that the last test can plant every kind of violation and see it found.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "rlsp_async"

MAX_FUNCTION_LINES = 80
# 150 to 600 lines are normal. The module docstring of a longer file says why it is long, in a sentence with these words.
MAX_FILE_LINES = 600
WHY_LONG = "This file is long because"

CLOCK_AND_IO = frozenset(
    {
        "asyncio",
        "zmq",
        "time",
        "datetime",
        "sqlite3",
        "socket",
        "subprocess",
        "threading",
        "multiprocessing",
        "concurrent",
        "uvloop",
    }
)
TORCH = frozenset({"torch", "transformers", "vllm"})
WORDS = frozenset({"rlsp_async.messages"})


class Row(NamedTuple):
    """One room, or one module of the top level.

    `level`: how high it stands. `shells`: its modules that meet clocks, sockets, processes and threads ("*": all); the
    other modules are pure: they import neither those nor the shells of their room, and time is an argument. `never`:
    module prefixes that no module of the row imports, not even in a function.
    """

    level: int
    shells: tuple[str, ...] = ()
    never: frozenset[str] = frozenset()


ROWS = {
    # 0 to 2: what everything stands on
    "rlsp_async.errors": Row(0, (), TORCH),
    "rlsp_async.files": Row(1, (), TORCH),
    "rlsp_async.processes": Row(1, (), TORCH),
    "rlsp_async.blocking": Row(1, ("*",), TORCH),
    "rlsp_async.cuda": Row(1),
    "rlsp_async.columns": Row(1, (), TORCH),
    "rlsp_async.answers": Row(1, (), TORCH),
    "rlsp_async.messages": Row(2, (), TORCH),
    "rlsp_async.config": Row(2, (), TORCH),
    "rlsp_async.observations": Row(3, (), TORCH),
    "rlsp_async.contents": Row(3, (), TORCH),
    "rlsp_async.starts": Row(3, ("*",), TORCH),
    "rlsp_async.pulse": Row(3, ("*",), TORCH),
    "rlsp_async.plugins": Row(2, (), TORCH),
    # 3: pure logic, and what reads and writes single files
    "rlsp_async.algos": Row(3, (), WORDS),
    "rlsp_async.rewards": Row(3, (), WORDS),
    "rlsp_async.prompts": Row(3, (), TORCH),
    "rlsp_async.temperatures": Row(3, (), TORCH),
    "rlsp_async.tasks": Row(3),
    "rlsp_async.jsonl": Row(3, (), TORCH),
    "rlsp_async.logs": Row(3, (), TORCH),
    "rlsp_async.model_files": Row(3, (), TORCH),
    "rlsp_async.template": Row(3, ("*",), TORCH),
    # 4: the rooms of the line, and what they stand on; each has its shells
    "rlsp_async.tokens": Row(4),
    "rlsp_async.model": Row(4),
    "rlsp_async.weights": Row(
        4, ("file", "gloo", "group_channel", "kinds", "nccl", "receive", "serve", "snapshot", "transport")
    ),
    "rlsp_async.wire": Row(
        4, ("auth", "jobs", "keyring", "knock", "link", "loading", "router", "session", "sockets"), TORCH
    ),
    "rlsp_async.environments": Row(4, ("fork_server", "pool"), TORCH | frozenset({"zmq"})),
    "rlsp_async.sampling": Row(
        4,
        (
            "check",
            "conversation",
            "engines",
            "pulling",
            "sampler",
            "scripted",
            "torch_engine",
            "vllm_engine",
            "vllm_extension",
        ),
    ),
    "rlsp_async.verifying": Row(
        4, ("attempts", "code", "executable", "fork_server", "judge", "pool", "sandbox"), TORCH | frozenset({"zmq"})
    ),
    "rlsp_async.replay": Row(4, ("integrity", "journal", "server"), frozenset({"torch", "vllm"})),
    "rlsp_async.learning": Row(
        4, ("checkpoint", "export", "fence", "follower", "learner", "outbox", "publish", "step_order")
    ),
    "rlsp_async.report": Row(4, (), TORCH | frozenset({"zmq"})),
    # 5 to 9: what every process shares, what checks and starts them, and the command
    "rlsp_async.audit": Row(5, ("*",), TORCH | frozenset({"zmq", "rlsp_async.replay.hub", "rlsp_async.replay.ledger"})),
    "rlsp_async.service": Row(5, ("*",), TORCH),
    "rlsp_async.preflight": Row(6, ("references",)),
    "rlsp_async.evaluate": Row(6, ("*",)),
    "rlsp_async.grading": Row(6, ("*",), TORCH),
    "rlsp_async.chaos": Row(
        6, ("clocks", "corruption", "damage", "harness", "liar", "proxy", "shifted", "verdict"), TORCH
    ),
    "rlsp_async.runner": Row(7, ("resume", "run", "supervise", "terminal"), TORCH),
    "rlsp_async.offline": Row(8, ("importing",), TORCH | frozenset({"zmq"})),
    "rlsp_async.selftest": Row(8, ("basics", "engines", "learners", "links", "run_trials", "whole")),
    "rlsp_async.cli": Row(9, ("*",), TORCH | frozenset({"zmq"})),
    "rlsp_async.api": Row(9, (), TORCH),
    "rlsp_async.__main__": Row(9, (), TORCH),
    "rlsp_async": Row(9, (), TORCH),  # __init__.py
}
SEEN_FROM_PURE = {
    ("rlsp_async.wire.gate", "rlsp_async.wire.keyring"): "the types of keys and of the allow-list",
}
"""(pure module, shell of its room) -> what alone of the shell is used."""
ROOMS = ("rlsp_async.sampling", "rlsp_async.verifying", "rlsp_async.replay", "rlsp_async.learning")
# Foreign libraries that have one home.
HOMES = {
    "zmq": ("rlsp_async.wire.", "rlsp_async.chaos.liar", "rlsp_async.chaos.proxy"),
    "vllm": ("rlsp_async.sampling.vllm_",),
}
FORBIDDEN_MODULES = frozenset({"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"})
FORBIDDEN_NAMES = frozenset({"eval", "exec", "__import__"})
RUNNER = "rlsp_async.verifying.code.runner"  # its one line is nailed down in test_forbidden.py
FORBIDDEN_METHODS = frozenset({"recv_pyobj", "send_pyobj", "torch.load", "os.system", "yaml.load"})
FORBIDDEN_TRUE = frozenset({"trust_remote_code", "allow_pickle", "shell"})


def module_name(path: Path) -> str:
    """rlsp_async/replay/hub.py -> rlsp_async.replay.hub; a package is named by its folder."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def sources() -> list[tuple[str, str]]:
    return [(module_name(path), path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))]


MODULES = frozenset(name for name, _ in sources())


def inside(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def row(name: str) -> Row | None:
    """The row of the longest prefix; the bare package's row is for its __init__ alone."""
    return ROWS.get(room_of(name))


def imports(source: str) -> Iterator[tuple[int, str]]:
    """(line, module) of every import, those within functions too; `from package import module` names the module."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                yield node.lineno, whole if whole in MODULES else base


def check_imports(name: str, source: str) -> Iterator[str]:
    mine = row(name)
    if mine is None:
        yield f"{name}: has no row in the table of tests/test_layers.py"
        return
    for line, other in imports(source):
        where = f"{name}:{line} imports {other}"
        if other.startswith("."):
            yield f"{where}: write imports in full"
        theirs = row(other) if inside(other, "rlsp_async") else None
        if theirs and theirs.level > mine.level:
            yield f"{where}: imports go down only ({mine.level} -> {theirs.level})"
        if any(inside(other, never) for never in mine.never):
            yield f"{where}: {name} must not know it"
        for library, home in HOMES.items():
            if inside(other, library) and not name.startswith(home):
                yield f"{where}: only {' and '.join(home)} may"


def check_purity(name: str, source: str) -> Iterator[str]:
    """A module that is no shell of its room imports no clock, no socket, no process, and no shell of its room."""
    if is_shell(name):
        return
    for line, other in imports(source):
        if any(inside(other, library) for library in CLOCK_AND_IO):
            yield f"{name}:{line} imports {other}: it is pure; only the shells of its row may"
        if room_of(other) == room_of(name) and is_shell(other) and (name, other) not in SEEN_FROM_PURE:
            yield f"{name}:{line} imports {other}: a pure module does not know the shells of its room"


def room_of(name: str) -> str:
    """The prefix of the module's row."""
    fits = [prefix for prefix in ROWS if inside(name, prefix) and (prefix != "rlsp_async" or name == "rlsp_async")]
    return max(fits, key=len, default="")


def is_shell(name: str) -> bool:
    """Whether the row of a module lists it among its shells, or the folder that it is in."""
    room = room_of(name)
    shells = ROWS[room].shells if room else ()
    return "*" in shells or any(inside(name, f"{room}.{shell}") for shell in shells)


def circles(named: list[tuple[str, str]]) -> list[list[str]]:
    """Groups of modules that import one another, by imports in functions too (Tarjan's components)."""
    known = {name for name, _ in named}
    graph = {name: sorted({other for _, other in imports(source) if other in known} - {name}) for name, source in named}
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        number[name] = lowest[name] = len(number)
        stack.append(name)
        for other in graph[name]:
            if other not in number:
                visit(other)
            if other in stack:
                lowest[name] = min(lowest[name], lowest[other])
        if lowest[name] == number[name]:
            at = stack.index(name)
            if len(stack) - at > 1:
                found.append(sorted(stack[at:]))
            del stack[at:]

    for name in graph:
        if name not in number:
            visit(name)
    return found


def check_rooms(name: str, source: str) -> Iterator[str]:
    room = next((room for room in ROOMS if inside(name, room)), None)
    for line, other in imports(source):
        if room and any(inside(other, neighbour) for neighbour in ROOMS if neighbour != room):
            yield f"{name}:{line} imports {other}: rooms never import one another"


def check_lengths(name: str, source: str) -> Iterator[str]:
    tree, num_lines = ast.parse(source), source.count("\n")
    if num_lines > MAX_FILE_LINES and WHY_LONG not in (ast.get_docstring(tree) or ""):
        yield f"{name}: {num_lines} lines; above {MAX_FILE_LINES} the docstring says why ({WHY_LONG!r} ...)"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MAX_FUNCTION_LINES:
                yield f"{name}:{node.lineno} {node.name}: {length} lines, at most {MAX_FUNCTION_LINES}"


def check_calls(name: str, source: str) -> Iterator[str]:
    for line, other in imports(source):
        if other.split(".")[0] in FORBIDDEN_MODULES:
            yield f"{name}:{line} imports {other}: it runs what it reads"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if (called in FORBIDDEN_NAMES and name != RUNNER) or any(
                ("." + called).endswith("." + bad) for bad in FORBIDDEN_METHODS
            ):
                yield f"{name}:{node.lineno} calls {called}"
            for keyword in node.keywords:
                if keyword.arg in FORBIDDEN_TRUE and not _is_false(keyword.value):
                    yield f"{name}:{node.lineno} passes {keyword.arg}"
        elif isinstance(node, ast.ExceptHandler):
            if node.type is None or all(isinstance(line, ast.Pass) for line in node.body):
                yield f"{name}:{node.lineno} swallows errors: name them, and retry, translate or count"
        elif isinstance(node, ast.Raise) and node.exc and "NotImplementedError" in ast.unparse(node.exc):
            yield f"{name}:{node.lineno} is not implemented"


def _is_false(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and value.value is False


def check_text(name: str, source: str) -> Iterator[str]:
    for number, line in enumerate(source.splitlines(), start=1):
        if not line.isascii():
            yield f"{name}:{number} is not ASCII"
        if any(mark in line for mark in ("# TODO", "# FIXME", "# XXX")):
            yield f"{name}:{number} leaves work for later"


CHECKS = (check_imports, check_purity, check_rooms, check_lengths, check_calls, check_text)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_package_keeps_the_rules(check):
    found = [sentence for name, source in sources() for sentence in check(name, source)]
    assert not found, "\n" + "\n".join(found)


def test_no_modules_import_one_another():
    assert not circles(sources())


def test_every_shell_of_the_table_is_there_and_is_one():
    """A shell that meets neither clock nor I/O, itself or through another shell of its room, is pure after all."""
    impure = set()
    for name, source in sources():
        for _, other in imports(source):
            near = room_of(other) == room_of(name) and is_shell(other)
            if near or any(inside(other, library) for library in CLOCK_AND_IO):
                impure.add(name)
    listed = {room if shell == "*" else f"{room}.{shell}" for room, mine in ROWS.items() for shell in mine.shells}
    assert not {prefix for prefix in listed if not any(inside(name, prefix) for name in impure)}


def test_nothing_is_excepted_that_is_not_there():
    pairs = {(name, other) for name, source in sources() for _, other in imports(source)}
    assert SEEN_FROM_PURE.keys() <= pairs


def test_one_row_a_room():
    rooms = {name for name in MODULES if name.count(".") <= 1}
    assert rooms == set(ROWS)


def test_services_are_short_and_never_imported():
    scripts = sorted((ROOT / "services").glob("*.py"))
    assert {script.stem for script in scripts} >= {"replay", "sampler", "verifier", "learner"}
    for script in scripts:
        source = script.read_text(encoding="utf-8")
        assert source.count("\n") <= 80, f"{script.name}: a composition root and nothing else"
        assert not list(check_calls(script.stem, source))
    for name, source in sources():
        assert not [other for _, other in imports(source) if inside(other, "services")], name


def test_folders_that_are_no_packages_stay_none():
    """With an __init__.py, `proto` of this checkout would shadow Google's."""
    for folder in ("services", "proto", "launch"):
        assert not list((ROOT / folder).rglob("__init__.py"))


def test_import_and_help_load_nothing_heavy():
    code = (
        "import sys, rlsp_async, rlsp_async.cli\n"
        "print(sorted({'torch', 'vllm', 'transformers', 'zmq'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=50)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("rlsp_async.replay.hub", "import torch\n"),
        ("rlsp_async.replay.hub", "import time\n"),
        ("rlsp_async.replay.server", "def f():\n    import zmq.asyncio\n"),
        ("rlsp_async.learning.learner", "from rlsp_async.replay import ledger\n"),
        ("rlsp_async.sampling.sampler", "from rlsp_async.verifying.pool import VerifierPool\n"),
        ("rlsp_async.sampling.torch_engine", "import vllm\n"),
        ("rlsp_async.algos.grpo", "from rlsp_async.messages import Rollout\n"),
        ("rlsp_async.messages", "from rlsp_async.wire import codec\n"),
        ("rlsp_async.messages", "from .errors import RlspError\n"),
        ("rlsp_async.unheard_of", "import json\n"),
        ("rlsp_async.learning.x", "import torch\ntorch.load('f')\n"),
        ("rlsp_async.learning.x", "import pickle\n"),
        ("rlsp_async.learning.x", "eval('1')\n"),
        ("rlsp_async.wire.x", "self.socket.recv_pyobj()\n"),
        ("rlsp_async.sampling.x", "load('m', trust_remote_code=True)\n"),
        ("rlsp_async.sampling.x", "try:\n    f()\nexcept ValueError:\n    pass\n"),
        ("rlsp_async.sampling.x", "try:\n    f()\nexcept:\n    g()\n"),
        ("rlsp_async.sampling.x", "def f():\n    raise NotImplementedError\n"),
        ("rlsp_async.sampling.x", "x = 1\n" * 601),
        ("rlsp_async.sampling.x", "def f():\n" + "    x = 1\n" * 80),
        ("rlsp_async.sampling.x", "# TODO later\n"),
        ("rlsp_async.sampling.x", "# \u00b5\n"),
    ],
)
def test_planted_violation_is_found(name, source):
    assert [sentence for check in CHECKS for sentence in check(name, source)]


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("rlsp_async.learning.x", "model.eval()\njson.load(f)\nload('m', trust_remote_code=False)\n"),
        ("rlsp_async.replay.server", "import asyncio\nfrom rlsp_async.wire.router import Router\n"),
        ("rlsp_async.sampling.vllm_engine", "def f():\n    import vllm\n"),
        ("rlsp_async.sampling.x", "try:\n    f()\nexcept ValueError:\n    count += 1\n"),
    ],
)
def test_honest_code_is_not_accused(name, source):
    assert not [sentence for check in CHECKS for sentence in check(name, source)]


def test_planted_circle_is_found():
    named = [
        ("rlsp_async.files", "def f():\n    from rlsp_async.columns import x\n"),
        ("rlsp_async.columns", "from rlsp_async import errors\n"),
        ("rlsp_async.errors", "import rlsp_async.files\n"),
        ("rlsp_async.messages", "from rlsp_async import files\n"),
    ]
    assert circles(named) == [["rlsp_async.columns", "rlsp_async.errors", "rlsp_async.files"]]
    assert not circles([named[0], named[1], named[3]])
