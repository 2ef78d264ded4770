"""Verifier that is a program of the user's own, in any language: JSON lines in on its input, JSON lines out.

    in   {"id": 7, "prompt": "2 + 2?", "response": "it is 4", "answer": "4"}
    out  {"id": 7, "score": 1.0}      or      {"id": 7, "status": "wrong", "parts": {"correct": 0.0, "style": 0.5}}

    [task]
    verifier = "executable"
    verifier_options = { command = ["./check", "--strict"] }

The program is started once and asked again and again, one line at a time. It is killed, with what it has started, when
an answer takes longer than the pool's deadline; the time of a start counts for the first answer. A program that ends,
that answers with no JSON, with another id or with a status that is none gives the verdict `error`, never `wrong`, and
the next answer starts it anew. It is trusted: nothing confines it and no limit of memory holds for it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import IO, Literal

import msgspec

from rlsp_async.config import Section
from rlsp_async.errors import ConfigError, EngineError
from rlsp_async.messages import Verdict
from rlsp_async.verifying.base import as_verdict, judged, unparsable
from rlsp_async.verifying.sandbox import die_with_parent

VERSION = "1"
LANE = "program"
MAX_LINE_BYTES = 1 << 20
SHOWN_BYTES = 80


class ExecutableConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `executable`."""

    command: list[str]
    """The program and its arguments; no shell reads them. A relative path counts from the working directory."""
    env: dict[str, str] = {}
    """Its environment variables beyond PATH (the system's own) and LANG."""

    def __post_init__(self) -> None:
        if not self.command or not self.command[0]:
            raise ValueError("command must name a program")


Config = ExecutableConfig


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the program; fields of other names are ignored."""

    id: int
    score: float | None = None
    status: Literal["correct", "wrong", "unparsable", "error", ""] = ""
    parts: dict[str, float] = {}
    extracted: str = ""
    detail: str = ""


_REPLY = msgspec.json.Decoder(Reply)


class ExecutableVerifier:
    """The program, started when it is first needed."""

    def __init__(self, cfg: ExecutableConfig, program: str) -> None:
        self._cfg = cfg
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None
        self._num_asked = 0

    def score(self, prompt: str, response: str, answer: str) -> Verdict:
        """The program's verdict, waited for until the pool's deadline. Raises EngineError when it gives none."""
        self._num_asked += 1
        line = {"id": self._num_asked, "prompt": prompt, "response": response, "answer": answer}
        try:
            return verdict_of(self._exchange(msgspec.json.encode(line) + b"\n"), self._num_asked)
        except EngineError:
            self.stop()
            raise

    def stop(self) -> None:
        """Kills the program, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            _pipes(self._process)[0].close()
            _pipes(self._process)[1].close()
            self._process = None

    def _exchange(self, line: bytes) -> bytes:
        """One line there, one line back."""
        process = self._process = self._process or self._start()
        writer, reader = _pipes(process)
        try:
            writer.write(line)
            writer.flush()
            reply = reader.readline(MAX_LINE_BYTES)
        except OSError as e:
            raise EngineError(f"{self._program} takes no line: {e.strerror}") from None
        if not reply:
            raise EngineError(f"{self._program} has ended{_code(process)}")
        return reply

    def _start(self) -> subprocess.Popen[bytes]:
        environment = {key: value for key, value in os.environ.items() if key in ("PATH", "LANG")}
        try:
            return subprocess.Popen(
                [self._program, *self._cfg.command[1:]],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**environment, **self._cfg.env},
                preexec_fn=die_with_parent,
            )
        except OSError as e:
            raise EngineError(f"{self._program} cannot be started: {e.strerror}") from None


def load(cfg: ExecutableConfig) -> ExecutableVerifier:
    """Raises ConfigError when there is no such program; starts nothing."""
    program = shutil.which(os.path.expanduser(cfg.command[0]))
    if program is None:
        raise ConfigError(f"task.verifier_options.command: no program {cfg.command[0]!r}, or it is not executable")
    return ExecutableVerifier(cfg, os.path.abspath(program))


def verdict_of(line: bytes, number: int) -> Verdict:
    """A program's line as the verdict on answer `number`. Raises EngineError when it is none."""
    try:
        reply = _REPLY.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as e:
        raise EngineError(f"the program wrote no verdict but {line[:SHOWN_BYTES]!r}: {e}") from None
    if reply.id != number:
        raise EngineError(f"the program answered id {reply.id} when asked for {number}")
    if reply.status == "error":
        return Verdict(status="error", detail=reply.detail or "the program says so")
    base = _base(reply)
    return msgspec.structs.replace(
        base, parts={**base.parts, **reply.parts}, extracted=reply.extracted, detail=reply.detail
    )


def _base(reply: Reply) -> Verdict:
    """The verdict without the program's own parts."""
    if reply.status == "unparsable":
        return unparsable(reply.detail)
    if reply.status:
        return judged(reply.status == "correct", "")
    if reply.score is None:
        raise EngineError('the program wrote neither "score" nor "status"')
    try:
        return as_verdict(reply.score)
    except ValueError as e:
        raise EngineError(f"the program's {e}") from None


def _pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    assert process.stdin is not None
    assert process.stdout is not None
    return process.stdin, process.stdout


def _code(process: subprocess.Popen[bytes]) -> str:
    """Its exit code, if it is known at once."""
    try:
        return f" with exit code {process.wait(timeout=0.2)}"
    except subprocess.TimeoutExpired:
        return ""
