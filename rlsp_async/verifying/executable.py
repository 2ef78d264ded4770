"""Verifier that is a program of the user's own, in any language: JSON lines in on its input, JSON lines out.

    in   {"id": 7, "prompt": "2 + 2?", "response": "it is 4", "answer": "4"}
    out  {"id": 7, "score": 1.0}      or      {"id": 7, "status": "wrong", "parts": {"correct": 0.0, "style": 0.5}}

    [task]
    verifier = "executable"
    verifier_options = { command = ["./check", "--strict"] }

The program is started once and asked again and again, one line at a time. When an answer takes longer than the pool's
deadline, the program is killed with all that it has started; for the first answer, the time of the start counts, too.
When it ends, or writes a line that is not JSON, has another id or has an unknown status, the verdict is `error`, never
`wrong`, and the next answer starts the program again. It is trusted: nothing confines it or limits its memory.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import IO, Literal

import msgspec

from rlsp_async.config import Section
from rlsp_async.config.ranges import FreeText
from rlsp_async.errors import ConfigError, EngineError
from rlsp_async.messages import Verdict
from rlsp_async.verifying.base import as_verdict, make_unparsable, make_verdict
from rlsp_async.verifying.sandbox import die_with_parent

VERSION = "1"
LANE = "program"
MAX_LINE_BYTES = 1 << 20
SHOWN_BYTES = 80


class ExecutableConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `executable`."""

    command: list[FreeText]
    """The program and its arguments; no shell reads them. A relative path counts from the working directory."""
    env: dict[str, FreeText] = {}
    """Environment variables of the program, beside the system's PATH and LANG."""

    def __post_init__(self) -> None:
        if not self.command or not self.command[0]:
            raise ValueError("command must name a program")


Config = ExecutableConfig


class ProgramReply(msgspec.Struct, frozen=True, kw_only=True):
    """One line that the program writes; fields with other names are ignored."""

    id: int
    score: float | None = None
    status: Literal["correct", "wrong", "unparsable", "error", ""] = ""
    parts: dict[str, float] = {}
    extracted: str = ""
    detail: str = ""


_REPLY = msgspec.json.Decoder(ProgramReply)


class ExecutableVerifier:
    """The verifier `executable`; it starts the program for the first answer."""

    def __init__(self, cfg: ExecutableConfig, program: str) -> None:
        self._cfg = cfg
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None
        self._num_asked = 0

    def score(self, prompt: str, response: str, answer: str) -> Verdict:
        """Returns the program's verdict; the pool's deadline bounds the wait.

        Raises:
            EngineError: the program gave no verdict.
        """
        self._num_asked += 1
        line = {"id": self._num_asked, "prompt": prompt, "response": response, "answer": answer}
        try:
            return read_verdict(self._exchange(msgspec.json.encode(line) + b"\n"), self._num_asked)
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
        """Writes one line and reads one line."""
        process = self._process = self._process or self._start()
        writer, reader = _pipes(process)
        try:
            writer.write(line)
            writer.flush()
            reply = reader.readline(MAX_LINE_BYTES)
        except OSError as e:
            raise EngineError(f"{self._program} takes no line: {e.strerror}") from None
        if not reply:
            raise EngineError(f"{self._program} has ended{_exit_code_text(process)}")
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
    """Makes the verifier; starts nothing.

    Raises:
        ConfigError: there is no such program.
    """
    program = shutil.which(os.path.expanduser(cfg.command[0]))
    if program is None:
        raise ConfigError(f"task.verifier_options.command: no program {cfg.command[0]!r}, or it is not executable")
    return ExecutableVerifier(cfg, os.path.abspath(program))


def read_verdict(line: bytes, number: int) -> Verdict:
    """Reads a line of the program as the verdict on answer `number`.

    Raises:
        EngineError: the line is not a verdict, or it has another id.
    """
    try:
        reply = _REPLY.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as e:
        raise EngineError(f"the program wrote something that is not a verdict, {line[:SHOWN_BYTES]!r}: {e}") from None
    if reply.id != number:
        raise EngineError(f"the program answered id {reply.id} when asked for {number}")
    if reply.status == "error":
        return Verdict(status="error", detail=reply.detail or "the program reported an error")
    base = _base_verdict(reply)
    return msgspec.structs.replace(
        base, parts={**base.parts, **reply.parts}, extracted=reply.extracted, detail=reply.detail
    )


def _base_verdict(reply: ProgramReply) -> Verdict:
    """The verdict without the parts that the program wrote."""
    if reply.status == "unparsable":
        return make_unparsable(reply.detail)
    if reply.status:
        return make_verdict(reply.status == "correct", "")
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


def _exit_code_text(process: subprocess.Popen[bytes]) -> str:
    """The exit code of the program, in words, if it is known within 0.2 s."""
    try:
        return f" with exit code {process.wait(timeout=0.2)}"
    except subprocess.TimeoutExpired:
        return ""
