"""Carries out the fault `corrupt`: damages files of the line, and says what is wrong with what followed (damage.py).

weights, checkpoint and notes are damaged while everything runs; then the process that reads them is killed, so that
its next start finds them. A journal is damaged while nothing runs: it is copied, everything is started again, the end
or the first sign of the new hub is awaited, and a refused run gets the copy back.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from pathlib import Path
from random import Random
from typing import Protocol

from rlsp_async.chaos import damage as files
from rlsp_async.chaos.faults import InjectedFault

ANSWER_S = 120.0
"""Longest time until a start over a damaged journal is refused, or the hub opens it."""
LOOK_S = 0.1
REFUSED_S = 60.0
"""A run may end because no sampler takes the damaged weights up to this time after the damage."""
DIVERGED = 3


class Line(Protocol):
    """The running line, as far as it is stopped and started (`Harness`)."""

    async def end_everything(self) -> None:
        """Kills every process, and has none started before `start_again`."""

    def start_again(self) -> asyncio.Future[tuple[int, list[str]]]:
        """Lets the run start; returns what is set to its exit code and its output when that start ends."""

    def go_on(self) -> None:
        """Nobody waits for the end of that start any more."""

    def kill(self, name: str) -> None:
        """Kills one service."""

    def excuse(self, code: int, seconds: float) -> None:
        """The run may end with this code in the next seconds."""


class Corruption:
    """Damages the files of one run. Each damage is decided by the seed and its time."""

    def __init__(self, run: Path, seed: int, line: Line) -> None:
        self._run, self._seed, self._line = run, seed, line
        self._damaged: list[str] = []
        """Checkpoints that were damaged."""

    async def carry_out(self, injected: InjectedFault) -> str:
        """Damages what the fault names. Returns its outcome; writes `found` and `wrong`."""
        what, how = injected.fault.what.split()
        random = Random(f"{self._seed}/{injected.fault.at_s}")
        try:
            if what == "journal":
                return await self._damage_journal(injected, how, random)
            return self._damage_file(injected, what, how, random)
        except FileNotFoundError as e:  # it was pruned or replaced at this moment
            return f"skipped: {e.filename} is gone"

    def _damage_file(self, injected: InjectedFault, what: str, how: str, random: Random) -> str:
        path: Path | None
        match what:
            case "weights":
                path, reader = files.newest_weights(self._run), "sampler-0"
            case "checkpoint":
                step, reader = files.newest_checkpoint(self._run, self._damaged), "learner-0"
                inside = sorted(step.iterdir()) if step is not None else []
                path = random.choice(inside) if inside else None
            case _:
                found = [self._run / name for name in files.NOTES if (self._run / name).is_file()]
                path, reader = (random.choice(found) if found else None), ""
        if path is None:
            return "skipped: there was no such file, or no older one"
        if what == "checkpoint":
            self._damaged.append(path.parent.name)
        files.damage(path, how, random)
        injected.found = str(path.name)
        if what == "weights":
            self._line.excuse(DIVERGED, REFUSED_S)
        if reader:
            self._line.kill(reader)
        return "done"

    async def _damage_journal(self, injected: InjectedFault, how: str, random: Random) -> str:
        await self._line.end_everything()
        with tempfile.TemporaryDirectory(prefix="rlsp-chaos-") as temporary:
            copy, look = Path(temporary) / "copy", Path(temporary) / "look"
            files.copy_journal(self._run, copy)
            before = files.content(copy, look)
            path = random.choice([self._run / name for name in files.JOURNAL[:2] if _has_bytes(self._run / name)])
            files.damage(path, how, random)
            after = files.content(self._run, look)
            (self._run / "hub.json").unlink(missing_ok=True)  # the hub writes it when it has opened the journal
            ended = self._line.start_again()
            is_open = await self._wait_for(ended)
            try:
                injected.found, injected.wrong = _judge(path.name, is_open, before == after, ended)
            finally:
                if not is_open:
                    await self._line.end_everything()
                    files.copy_journal(copy, self._run)
                self._line.go_on()
        return "done"

    async def _wait_for(self, ended: asyncio.Future[tuple[int, list[str]]]) -> bool:
        """Waits until the start has ended, or the hub has opened the journal. Returns whether it has opened it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_S):
                while not ended.done():
                    if (self._run / "hub.json").is_file():
                        return True
                    await asyncio.sleep(LOOK_S)
        return False


def _has_bytes(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _judge(name: str, is_open: bool, is_same: bool, ended: asyncio.Future[tuple[int, list[str]]]) -> tuple[str, str]:
    """(what the run did, what is wrong with it) after damage to a file of the journal."""
    if is_open:
        wrong = "" if is_same else f"rows of the journal were changed by damage to {name}, and the run went on"
        return f"{name}: no row was hit, the run went on", wrong
    if not ended.done():
        return f"{name}: silence", f"no word within {ANSWER_S:.0f} s after damage to {name}"
    code, said = ended.result()
    words = [line for line in said if line.startswith("rlsp")]
    return f"{name}: refused: {words[0] if words else said[-1:]}", files.why_wrong(code, said)
