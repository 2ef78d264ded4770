"""The process that loads a verifier once and forks a killable checker on demand.

    pool (service) --control socket--> nursery --fork--> checker, checker, ...
         \\________ one channel a checker: VerifyItem in, Verdict out ________/

Started as `python -m rlsp_async.verifying.fork_server`. A fork costs milliseconds, where a fresh interpreter with
sympy costs a second. Nothing here is asynchronous or threaded. The fork server ends when its control socket closes,
that is when the service closes it or dies. A checker dies with the fork server (PR_SET_PDEATHSIG) or when its channel
closes. A frame is a length (4 bytes, little-endian) and a msgpack body.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import sys
import time

import msgspec

from rlsp_async.errors import UserError
from rlsp_async.messages import Verdict, VerifyItem
from rlsp_async.rewards.search import with_counts
from rlsp_async.verifying.base import Verifier, load_verifier
from rlsp_async.verifying.sandbox import confine, die_with_parent, holds

LENGTH = struct.Struct("<I")
MAX_TEXT = 500


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What the pool tells the nursery: fork one (a descriptor comes along), or kill one."""

    kill: int = 0
    """Pid of the checker; 0: fork."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Of a checker."""

    memory_mb: int
    cpu_s: int
    """CPU time of one answer; the pool's deadline comes first, unless the pool cannot kill any more."""


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """First frame of the nursery and of every checker."""

    pid: int
    error: str = ""
    """Why the verifier cannot be loaded; one sentence."""
    lane: str = ""
    """Lane of the verifier; empty in a checker's."""
    holds: dict[str, bool] = {}
    """What a checker cannot do on this machine, tried out (`confine.py`)."""


def main() -> None:
    """Argv: control descriptor, verifier name, its options as JSON, limits as JSON."""
    limits = msgspec.json.decode(sys.argv[4], type=Limits)
    control = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the service decides when we end
    try:
        verifier = load_verifier(sys.argv[2], msgspec.json.decode(sys.argv[3]))
    except UserError as e:
        control.sendall(frame(Ready(pid=os.getpid(), error=str(e))))
        return
    control.sendall(frame(Ready(pid=os.getpid(), lane=verifier.lane, holds=_holds(verifier))))
    _obey(control, verifier, verifier.name, limits)


def _holds(verifier: Verifier) -> dict[str, bool]:
    if verifier.lane == "program":
        return {}
    return holds(network=verifier.lane == "network", files=verifier.reads_files)


def frame(message: object) -> bytes:
    """A message with its length in front."""
    body = msgspec.msgpack.encode(message)
    return LENGTH.pack(len(body)) + body


def _obey(control: socket.socket, verifier: Verifier, name: str, limits: Limits) -> None:
    """Takes orders until the control socket closes, then kills what is left."""
    children: set[int] = set()
    while order := _next_order(control):
        message, descriptors = order
        children -= _reap(children)
        if message.kill in children:
            _kill(message.kill)
        for descriptor in descriptors:
            pid = os.fork()
            if pid == 0:
                control.close()
                _be_checker(socket.socket(fileno=descriptor), verifier, name, limits)
            os.close(descriptor)
            children.add(pid)
    for pid in children - _reap(children):
        _kill(pid)


def _kill(pid: int) -> None:
    """Kills a checker and whatever it has started: they are one process group."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:  # it has not come so far as to be a group
        os.kill(pid, signal.SIGKILL)


def _next_order(control: socket.socket) -> tuple[Order, list[int]] | None:
    """One order; SOCK_SEQPACKET keeps them apart. None at the end."""
    data, descriptors, _, _ = socket.recv_fds(control, 4096, 4)
    return (msgspec.msgpack.decode(data, type=Order), descriptors) if data else None


def _reap(children: set[int]) -> set[int]:
    """Children that have ended. Only reaped here, so no pid in `children` can be somebody else's."""
    return {pid for pid in children if os.waitpid(pid, os.WNOHANG)[0] == pid}


# --- the checker ---------------------------------------------------------------------------------------------------


def _be_checker(channel: socket.socket, verifier: Verifier, name: str, limits: Limits) -> None:
    """The life of a forked checker; never returns."""
    code = 1
    try:
        os.setpgid(0, 0)
        verifier.prepare(limits.memory_mb)
        if verifier.lane == "program":
            die_with_parent()
        else:
            confine(
                limits.memory_mb,
                network=verifier.lane == "network",
                files=verifier.reads_files,
                cpu_s=limits.cpu_s if verifier.lane == "isolated" else 0,
            )
        channel.sendall(frame(Ready(pid=os.getpid())))
        _serve(channel, verifier, name, limits.cpu_s if verifier.lane in ("fast", "network") else 0)
        code = 0
    except (BrokenPipeError, ConnectionResetError):
        code = 0  # the pool has closed the channel: nobody waits for an answer
    finally:
        os._exit(code)


def _serve(channel: socket.socket, verifier: Verifier, name: str, cpu_s: int) -> None:
    """Reads batches, answers each item as soon as it is judged: an unanswered item is the guilty one.

    A process that judges many answers cannot have a limit of CPU time for each of them; a timer kills it (SIGPROF).
    """
    read, decoder = channel.makefile("rb").read, msgspec.msgpack.Decoder(list[VerifyItem])
    while len(head := read(LENGTH.size)) == LENGTH.size:
        for item in decoder.decode(read(LENGTH.unpack(head)[0])):
            signal.setitimer(signal.ITIMER_PROF, cpu_s)
            channel.sendall(frame(_judge(verifier, name, item)))


def _judge(verifier: Verifier, name: str, item: VerifyItem) -> Verdict:
    start = time.perf_counter()
    try:
        verdict = verifier.judge(item.prompt, item.response, item.answer)
    except MemoryError:
        verdict = Verdict(status="error", detail="out of memory")
    except Exception as e:  # noqa: BLE001  a verifier's fault of any kind is a verdict on the verifier
        verdict = Verdict(status="error", detail=f"{type(e).__name__}: {e}")
    return msgspec.structs.replace(
        verdict,
        parts=with_counts(name, item.prompt, item.response, item.answer, verdict.parts),
        verifier=name,
        milliseconds=(time.perf_counter() - start) * 1e3,
        extracted=verdict.extracted[:MAX_TEXT],
        detail=verdict.detail[:MAX_TEXT],
    )


if __name__ == "__main__":
    main()
