"""Verdicts on a file of answers, through the same pool of killable processes as a run.

    echo '{"gold": "1/2", "response": "so \\\\boxed{0.5}"}' | rlsp grade -
    {"line": 1, "status": "correct", "correct": true, "parts": {...}, "extracted": "0.5", "ms": 0.1, ...}

JSON lines in (`gold`, `response`, optional `prompt`, `verifier`), JSON lines out in the same order. A line that cannot
be used gets a record with the status "bad_line" and the reason; the other lines are graded, and the exit code is 2.
Memory is bounded, because only a window of lines is in progress at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import msgspec

from rlsp_async import blocking, config
from rlsp_async.answers import join_answers
from rlsp_async.errors import ConfigError, DataError, unwritable
from rlsp_async.messages import Verdict, VerifyItem, VerifyJob

if TYPE_CHECKING:
    from rlsp_async.verifying.pool import VerifierPool

CHUNK_LINES = 16
BOM = b"\xef\xbb\xbf"
"""What some programs write at the beginning of a file in UTF-8."""
MAX_LINE_BYTES = 16 << 20
MAX_VERIFIERS = 8
"""Different verifiers of one file; each has a pool of processes of its own."""
PROGRESS_EVERY_S = 2.0


class AnswerLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the input; fields of other names are ignored."""

    gold: str | int | float | list[str | int | float]
    """The reference answer; a list: any of them is right."""
    response: str
    prompt: str = ""
    verifier: str = ""


_LINE = msgspec.json.Decoder(AnswerLine)
_ENCODE = msgspec.json.Encoder().encode
Entry = tuple[int, AnswerLine | str]
"""Number of the line, and the line or what is wrong with it."""


class GradeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How answers are graded."""

    verifier: str = "math"
    """For lines that name none."""
    options: list[str] = []
    """Of that verifier, as key=value in TOML syntax."""
    workers: int = 2
    """Checker processes of each verifier."""
    deadline_s: float = 5.0
    """Of one answer."""
    memory_mb: int = 2048
    """Of one checker process."""


def grade_file(path: str, path_out: str | None, settings: GradeSettings) -> int:
    """Grades the lines of a file, in order.

    Args:
        path: the file; "-": standard input.
        path_out: where the records go; None: standard output.
        settings: how answers are graded.

    Returns: the exit code: 0, or 2 when a line was bad.
    Raises: DataError, ConfigError or MachineError.
    """
    with contextlib.ExitStack() as files:
        lines = files.enter_context(_opened(path))
        out = files.enter_context(_created(path_out))
        return grade_stream(lines, out, settings, path_out or "standard output")


def grade_stream(lines: IO[bytes], out: IO[bytes], settings: GradeSettings, name_out: str = "the output") -> int:
    """Grades JSON lines and writes one record for each, as `grade_file`; `name_out` names the output in errors."""
    import structlog

    structlog.configure(
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(30),
    )
    return blocking.run(_Grading(settings, out, name_out).run(lines))


class _Grading:
    """The pools and the counts of one call."""

    def __init__(self, settings: GradeSettings, out: IO[bytes], name_out: str) -> None:
        self._settings = settings
        self._out, self._name_out = out, name_out
        self._pools: dict[str, VerifierPool] = {}
        self._counts: Counter[str] = Counter()
        self._num_judge_failed = 0
        self._start = self._told = time.monotonic()

    async def run(self, file: IO[bytes]) -> int:
        async with contextlib.AsyncExitStack() as stack:
            await self._pool(self._settings.verifier, stack)
            under_way: deque[tuple[list[Entry], asyncio.Task[list[Verdict | str]]]] = deque()
            chunks = _chunks(file)
            while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
                await self._load(chunk, stack)
                under_way.append((chunk, asyncio.create_task(self._judge(chunk))))
                if len(under_way) >= 4 * self._settings.workers:
                    await self._write(*under_way.popleft())
            while under_way:
                await self._write(*under_way.popleft())
        self._summary()
        return 2 if self._counts["bad_line"] else 0

    async def _load(self, chunk: list[Entry], stack: contextlib.AsyncExitStack) -> None:
        """Starts the pools that these lines name. A line that names an unknown verifier becomes a bad line."""
        for i, (number, line) in enumerate(chunk):
            if isinstance(line, AnswerLine) and line.verifier and line.verifier not in self._pools:
                try:
                    await self._pool(line.verifier, stack)
                except ConfigError as e:
                    chunk[i] = (number, str(e))

    async def _pool(self, name: str, stack: contextlib.AsyncExitStack) -> None:
        from rlsp_async.verifying.pool import VerifierPool

        if len(self._pools) >= MAX_VERIFIERS:
            raise ConfigError(f"more than {MAX_VERIFIERS} different verifiers in one file; grade them apart")
        options = config.tables(self._settings.options) if name == self._settings.verifier else {}
        cfg = config.RunConfig(
            name="grade",
            stages={"grade": config.StageConfig()},
            task=config.TaskConfig(verifier=name, verifier_options=options),
            verifier=config.VerifierConfig(
                processes=self._settings.workers,
                deadline_s=self._settings.deadline_s,
                memory_mb=self._settings.memory_mb,
            ),
        )
        pool = await stack.enter_async_context(VerifierPool(cfg))
        self._pools[name] = pool
        kept = ", ".join(what for what, held in pool.restrictions.items() if held) or "nothing"
        lost = ", ".join(what for what, held in pool.restrictions.items() if not held)
        _say(
            f"verifier {name}: {pool.lane} lane, {self._settings.workers} checkers, "
            f"{self._settings.deadline_s:g} s an answer; the kernel guarantees {kept}"
            + (f"; NOT HELD: {lost}" if lost else "")
        )

    async def _judge(self, chunk: list[Entry]) -> list[Verdict | str]:
        results: list[Verdict | str] = [line if isinstance(line, str) else "" for _, line in chunk]
        wanted: dict[str, list[int]] = {}
        for i, (_, line) in enumerate(chunk):
            if isinstance(line, AnswerLine):
                wanted.setdefault(line.verifier or self._settings.verifier, []).append(i)
        for name, places in wanted.items():
            items = [_item(line) for i in places if isinstance(line := chunk[i][1], AnswerLine)]
            done = await self._pools[name].verify(VerifyJob(group_id=chunk[0][0], task="grade", items=items))
            for i, verdict in zip(places, done.verdicts, strict=True):
                results[i] = verdict
        return results

    async def _write(self, chunk: list[Entry], task: asyncio.Task[list[Verdict | str]]) -> None:
        results = await task
        records = [_record(number, result) for (number, _), result in zip(chunk, results, strict=True)]
        self._counts.update(str(record["status"]) for record in records)
        self._num_judge_failed += sum(record["parts"].get("judge_failed", 0.0) > 0 for record in records)
        try:
            self._out.write(b"".join(_ENCODE(record) + b"\n" for record in records))
            self._out.flush()
        except BrokenPipeError:
            raise
        except OSError as e:
            raise unwritable(self._name_out, e) from None
        if time.monotonic() - self._told >= PROGRESS_EVERY_S:
            self._told = time.monotonic()
            _say(f"{self._counts.total()} lines, {self._counts.total() / (self._told - self._start):.0f} a second")

    def _summary(self) -> None:
        num, taken = self._counts.total(), time.monotonic() - self._start
        shown = ", ".join(f"{status} {count}" for status, count in sorted(self._counts.items())) or "nothing"
        _say(f"{num} lines in {taken:.1f} s ({num / max(taken, 1e-9):.0f} a second): {shown}")
        if failed := self._num_judge_failed:
            _say(f'the judge failed on {failed} of them: part "judge_failed", a neutral value stands in')
        if bad := self._counts["bad_line"]:
            _say(f'{bad} bad line{"s" * (bad > 1)}: see the records with status "bad_line"')


def _opened(name: str) -> contextlib.AbstractContextManager[IO[bytes]]:
    if name == "-":
        return contextlib.nullcontext(sys.stdin.buffer)
    try:
        return open(name, "rb")
    except OSError as e:
        raise DataError(f"{name}: cannot be read: {e.strerror}") from None


def _created(name: str | None) -> contextlib.AbstractContextManager[IO[bytes]]:
    if name is None:
        return contextlib.nullcontext(sys.stdout.buffer)
    try:
        return Path(name).open("wb")
    except OSError as e:
        raise unwritable(name, e) from None


def _chunks(file: IO[bytes]) -> Iterator[list[Entry]]:
    """Lines in chunks of CHUNK_LINES. Blank lines are skipped; a line that is too long becomes a bad line."""
    chunk: list[Entry] = []
    number = 0
    while text := file.readline(MAX_LINE_BYTES):
        number += 1
        is_long = len(text) == MAX_LINE_BYTES and not text.endswith(b"\n")
        text = text.removeprefix(BOM) if number == 1 else text
        while is_long and (rest := file.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
            continue
        if text.strip():
            chunk.append((number, f"longer than {MAX_LINE_BYTES} bytes" if is_long else _parsed(text)))
        if len(chunk) == CHUNK_LINES:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _parsed(text: bytes) -> AnswerLine | str:
    try:
        line = _LINE.decode(text)
        _gold(line)
        return line
    except (ValueError, RecursionError) as e:  # msgspec's errors and those of the decoding are ValueErrors
        return f"not a line with gold and response: {e}"


def _item(line: AnswerLine) -> VerifyItem:
    return VerifyItem(prompt=line.prompt, response=line.response, answer=_gold(line))


def _gold(line: AnswerLine) -> str:
    """The reference answer as a verifier gets it. Raises ValueError for a list that cannot be one."""
    return join_answers([str(gold) for gold in line.gold]) if isinstance(line.gold, list) else str(line.gold)


def _record(number: int, result: Verdict | str) -> dict[str, Any]:
    if isinstance(result, str):
        return {
            "line": number,
            "status": "bad_line",
            "correct": None,
            "parts": {},
            "extracted": "",
            "ms": 0.0,
            "verifier": "",
            "detail": result,
        }
    return {
        "line": number,
        "status": result.status,
        "correct": result.status == "correct" if result.is_true else None,
        "parts": result.parts,
        "extracted": result.extracted,
        "ms": round(result.milliseconds, 3),
        "verifier": result.verifier,
        "detail": result.detail,
    }


def _say(text: str) -> None:
    print(f"rlsp grade: {text}", file=sys.stderr)
