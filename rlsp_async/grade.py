"""`rlsp grade`: verdicts on a file of answers, through the same pool of killable processes as a run.

    echo '{"gold": "1/2", "response": "so \\\\boxed{0.5}"}' | rlsp grade -
    {"line": 1, "status": "correct", "correct": true, "parts": {...}, "extracted": "0.5", "ms": 0.1, ...}

JSON lines in (`gold`, `response`, optional `prompt`, `verifier`), JSON lines out in the same order. A line that cannot
be used gets a record with status "bad_line" and the reason; the others still run; the exit code is then 2. Memory is
bounded by the window of lines that are under way.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import msgspec

from rlsp_async import config
from rlsp_async.errors import ConfigError, DataError, unwritable
from rlsp_async.messages import Verdict, VerifyItem, VerifyJob

if TYPE_CHECKING:
    from rlsp_async.verifying.pool import VerifierPool

CHUNK_LINES = 16
MAX_LINE_BYTES = 16 << 20
MAX_VERIFIERS = 8
"""Different verifiers of one file; each is a pool of its own."""
TELL_EVERY_S = 2.0


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the input; fields of other names are ignored."""

    gold: str | int | float
    response: str
    prompt: str = ""
    verifier: str = ""


_LINE = msgspec.json.Decoder(Line)
_ENCODE = msgspec.json.Encoder().encode
Entry = tuple[int, Line | str]
"""Number of the line, and the line or what is wrong with it."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The arguments of `rlsp grade`."""
    text = "verdicts on JSON lines of answers (gold, response), in order"
    parser = commands.add_parser("grade", help=text, description=text)
    parser.add_argument("file", metavar="FILE", nargs="?", default="-", help="JSON lines; - or nothing: standard input")
    parser.add_argument(
        "--verifier",
        default="math",
        metavar="NAME",
        help="a shipped one, a dotted module or a file ending in .py; for lines that name none (default: math)",
    )
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="options",
        help="of that verifier, in TOML syntax; may be repeated",
    )
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="checker processes (default: 2)")
    parser.add_argument("--deadline-s", type=float, default=5.0, metavar="X", help="of one answer (default: 5)")
    parser.add_argument("--memory-mb", type=int, default=2048, metavar="N", help="of one checker (default: 2048)")
    parser.add_argument("--out", metavar="FILE", help="default: standard output")


def grade(arguments: argparse.Namespace) -> int:
    """Exit code 0, or 2 when a line was bad. Raises DataError, ConfigError or MachineError."""
    if arguments.workers < 1 or not 0 < arguments.deadline_s < 3600 or arguments.memory_mb < 256:
        raise ConfigError("--workers must be at least 1, --deadline-s above 0, --memory-mb at least 256")
    import structlog

    structlog.configure(
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(30),
    )
    with contextlib.ExitStack() as files:
        lines = files.enter_context(_opened(arguments.file))
        out = files.enter_context(_created(arguments.out))
        return asyncio.run(_Grading(arguments, out).run(lines))


class _Grading:
    """The counts and the pools of one call."""

    def __init__(self, arguments: argparse.Namespace, out: IO[bytes]) -> None:
        self._args = arguments
        self._out = out
        self._pools: dict[str, VerifierPool] = {}
        self._counts: Counter[str] = Counter()
        self._num_judge_failed = 0
        self._start = self._told = time.monotonic()

    async def run(self, file: IO[bytes]) -> int:
        async with contextlib.AsyncExitStack() as stack:
            await self._pool(self._args.verifier, stack)
            under_way: deque[tuple[list[Entry], asyncio.Task[list[Verdict | str]]]] = deque()
            chunks = _chunks(file)
            while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
                await self._load(chunk, stack)
                under_way.append((chunk, asyncio.create_task(self._judge(chunk))))
                if len(under_way) >= 4 * self._args.workers:
                    await self._write(*under_way.popleft())
            while under_way:
                await self._write(*under_way.popleft())
        self._summary()
        return 2 if self._counts["bad_line"] else 0

    async def _load(self, chunk: list[Entry], stack: contextlib.AsyncExitStack) -> None:
        """Starts the pools that these lines name; a verifier that is none makes its lines bad."""
        for i, (number, line) in enumerate(chunk):
            if isinstance(line, Line) and line.verifier and line.verifier not in self._pools:
                try:
                    await self._pool(line.verifier, stack)
                except ConfigError as e:
                    chunk[i] = (number, str(e))

    async def _pool(self, name: str, stack: contextlib.AsyncExitStack) -> None:
        from rlsp_async.verifying.pool import VerifierPool

        if len(self._pools) >= MAX_VERIFIERS:
            raise ConfigError(f"more than {MAX_VERIFIERS} different verifiers in one file; grade them apart")
        options = config.tables(self._args.options) if name == self._args.verifier else {}
        cfg = config.RunConfig(
            name="grade",
            stages={"grade": config.StageConfig()},
            task=config.TaskConfig(verifier=name, verifier_options=options),
            verifier=config.VerifierConfig(
                processes=self._args.workers, deadline_s=self._args.deadline_s, memory_mb=self._args.memory_mb
            ),
        )
        pool = await stack.enter_async_context(VerifierPool(cfg, "grade"))
        self._pools[name] = pool
        kept = ", ".join(what for what, held in pool.restrictions.items() if held) or "nothing"
        lost = ", ".join(what for what, held in pool.restrictions.items() if not held)
        _tell(
            f"verifier {name}: {pool.lane} lane, {self._args.workers} checkers, {self._args.deadline_s:g} s an answer"
            f"; the kernel guarantees {kept}" + (f"; NOT HELD: {lost}" if lost else "")
        )

    async def _judge(self, chunk: list[Entry]) -> list[Verdict | str]:
        results: list[Verdict | str] = [line if isinstance(line, str) else "" for _, line in chunk]
        wanted: dict[str, list[int]] = {}
        for i, (_, line) in enumerate(chunk):
            if isinstance(line, Line):
                wanted.setdefault(line.verifier or self._args.verifier, []).append(i)
        for name, places in wanted.items():
            items = [_item(line) for i in places if isinstance(line := chunk[i][1], Line)]
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
            raise unwritable(self._args.out or "standard output", e) from None
        if time.monotonic() - self._told >= TELL_EVERY_S:
            self._told = time.monotonic()
            _tell(f"{self._counts.total()} lines, {self._counts.total() / (self._told - self._start):.0f} a second")

    def _summary(self) -> None:
        num, taken = self._counts.total(), time.monotonic() - self._start
        shown = ", ".join(f"{status} {count}" for status, count in sorted(self._counts.items())) or "nothing"
        _tell(f"{num} lines in {taken:.1f} s ({num / max(taken, 1e-9):.0f} a second): {shown}")
        if failed := self._num_judge_failed:
            _tell(f'the judge failed on {failed} of them: part "judge_failed", a neutral value stands in')
        if bad := self._counts["bad_line"]:
            _tell(f'{bad} bad line{"s" * (bad > 1)}: see the records with status "bad_line"')


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
    """Lines by the dozen; blank ones are skipped, over-long ones read past and refused."""
    chunk: list[Entry] = []
    number = 0
    while text := file.readline(MAX_LINE_BYTES):
        number += 1
        is_long = len(text) == MAX_LINE_BYTES and not text.endswith(b"\n")
        while is_long and (rest := file.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
            continue
        if text.strip():
            chunk.append((number, f"longer than {MAX_LINE_BYTES} bytes" if is_long else _parsed(text)))
        if len(chunk) == CHUNK_LINES:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _parsed(text: bytes) -> Line | str:
    try:
        return _LINE.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as e:
        return f"not a line with gold and response: {e}"


def _item(line: Line) -> VerifyItem:
    return VerifyItem(prompt=line.prompt, response=line.response, answer=str(line.gold))


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


def _tell(text: str) -> None:
    print(f"rlsp grade: {text}", file=sys.stderr)
