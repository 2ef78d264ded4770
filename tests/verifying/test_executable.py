"""The verifier `executable`: the program's verdicts count, and its faults are never a verdict on the answer."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlsp_async.errors import ConfigError, EngineError
from rlsp_async.messages import Verdict
from rlsp_async.verifying.base import load_verifier
from rlsp_async.verifying.executable import read_verdict
from rlsp_async.verifying.pool import VerifierPool
from tests.verifying.pools import make_pool, verify_cases

PROGRAM = [sys.executable, "-I", "-S", str(Path(__file__).with_name("program.py"))]


def make(deadline_s: float = 20.0, command: list[str] = PROGRAM) -> VerifierPool:
    return make_pool("executable", {"command": command, "env": {"MARK": "1"}}, deadline_s=deadline_s)


async def ask(pool: VerifierPool, *responses: str) -> list[Verdict]:
    return await verify_cases(pool, *(("p\n", response, "yes") for response in responses))


async def test_what_it_says_counts() -> None:
    async with make() as pool:
        assert (pool.lane, pool.restrictions) == ("program", {})
        yes, no, style, unparsable, error, environment, prompt = await ask(
            pool, "yes", "no", "style", "unparsable", "error", "environment", "prompt"
        )
    assert (yes.status, yes.verifier) == ("correct", "executable/1")
    assert yes.parts.items() >= {"correct": 1.0, "format": 1.0, "score": 1.0}.items()
    assert (no.status, no.parts["correct"]) == ("wrong", 0.0)
    assert (style.status, style.detail) == ("wrong", "so-so")
    assert style.parts.items() >= {"correct": 0.0, "format": 1.0, "style": 0.5}.items()
    assert unparsable.status == "unparsable"
    assert unparsable.parts.items() >= {"correct": 0.0, "format": 0.0}.items()
    assert (error.status, error.detail) == ("error", "the program reported an error")
    assert (environment.extracted, prompt.extracted) == ("MARK", "p\n|yes")


async def test_one_process_until_it_errs_and_then_a_new_one() -> None:
    faults = {
        "die": "has ended with exit code 3",
        "rubbish": "not a verdict, b'no JSON",
        "old id": "answered id",
        "long": "not a verdict",
        "no score": "neither",
        "score nan": "not a verdict",
        "score text": "not a verdict",
        "timeout": "not a verdict",
    }
    responses = [text for fault in faults for text in ("pid", "pid", fault, "yes")]
    async with make() as pool:
        verdicts = await ask(pool, *responses)
    pids = [verdict.extracted for verdict in verdicts if verdict.extracted]
    assert pids[::2] == pids[1::2]
    assert len(set(pids)) == len(faults)
    for fault, verdict in zip(faults, verdicts[2::4], strict=True):
        assert (verdict.status, faults[fault] in verdict.detail) == ("error", True), verdict
    assert {verdict.status for verdict in verdicts[3::4]} == {"correct"}


async def test_an_answer_too_many_spoils_no_other() -> None:
    async with make() as pool:
        verdicts = await ask(pool, "twice", "yes", "yes", "yes")
    assert [verdict.status for verdict in verdicts] == ["wrong", "error", "correct", "correct"]


async def test_it_is_killed_at_the_deadline_with_its_children() -> None:
    async with make(deadline_s=6.0) as pool:
        pid = int((await ask(pool, "pid"))[0].extracted)
        verdicts = await ask(pool, "yes", "hang", "yes")
        assert [verdict.status for verdict in verdicts] == ["correct", "timeout", "correct"]
        assert pool.metrics()["checker_starts"] == 2.0  # the one that was killed, and the one after it
        assert await gone(f"/{pid}/")
        assert await gone(f"60.{pid}")
        other = int((await ask(pool, "pid"))[0].extracted)
    assert other != pid
    assert await gone(f"/{other}/")


async def test_nothing_is_left_after_kill_9_of_the_fork_server() -> None:
    async with make() as pool:
        pid = (await ask(pool, "pid"))[0].extracted
        assert pool.fork_server.pid is not None
        os.kill(pool.fork_server.pid, signal.SIGKILL)
        assert await gone(f"/{pid}/")


async def gone(mark: str) -> bool:
    """Waits, for a bounded time, until no process has this in its command line or its directory's name."""
    for _ in range(200):
        if not any(mark in text for text in commands()):
            return True
        await asyncio.sleep(0.02)
    return False


def commands() -> Iterator[str]:
    """Directory and command line of every process; a zombie has none."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if line := path.read_text(errors="replace"):
                yield f"{path} {line}"


async def test_a_program_that_cannot_run_is_an_error(tmp_path: Path) -> None:
    rubbish = tmp_path / "check"
    rubbish.write_bytes(b"\0\1\2")
    rubbish.chmod(0o755)
    async with make(command=[str(rubbish)]) as pool:
        assert (await ask(pool, "yes"))[0].detail.endswith("cannot be started: Exec format error")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"command": ["./nowhere", "--x"]}, "no program './nowhere', or it is not executable"),
        ({"command": []}, "command must name a program"),
        ({}, "missing required field `command`"),
        ({"command": "check"}, "Expected `array`, got `str`"),
    ],
)
def test_wrong_options(options: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        load_verifier("executable", options)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}\n",
        b"[1]\n",
        b'{"id": 8, "score": 1}',
        b'{"id": 7, "status": "right"}',
        b'{"id": 7, "score": true}',
        b"\xff\n",
        b'{"id": 7, "score": 1e999}',
    ],
)
def test_lines_that_are_no_verdict(line: bytes) -> None:
    with pytest.raises(EngineError):
        read_verdict(line, 7)
