"""The process that loads a verifier once and forks checker processes, each of which may be killed, on demand.

    pool (service) --control socket--> fork server --fork--> checker, checker, ...
         \\________ one channel for each checker: VerifyItem in, Verdict out ________/

Started as `python -m rlsp_async.verifying.fork_server`. A fork costs milliseconds, where a fresh interpreter with
sympy costs a second. Nothing here is asynchronous or threaded. The fork server ends when its control socket closes,
that is when the service closes it or dies. A checker dies with the fork server (PR_SET_PDEATHSIG) or when its channel
closes. A frame is a length (4 bytes, little-endian) and a msgpack body.

In the isolated lane, where checkers may run what a model wrote, the fork server goes on in a PID namespace of its own
once the verifier has been loaded (`sandbox.enter_namespaces`), where the kernel grants one. Checkers and their process
ids are then those of the namespace, and the process that the pool has started only waits.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable

import msgspec

from rlsp_async.errors import UserError
from rlsp_async.messages import Verdict, VerifyItem
from rlsp_async.rewards.search import with_counts
from rlsp_async.verifying.base import Verifier, load_verifier
from rlsp_async.verifying.sandbox import confine, die_with_parent, enter_namespaces, probe_restrictions

LENGTH = struct.Struct("<I")
MAX_TEXT_CHARS = 500
"""Of `extracted` and `detail` in a verdict."""


class ForkOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What the pool orders: to fork a checker (a file descriptor is sent along), or to kill one."""

    kill: int = 0
    """Process id of the checker to kill; 0: fork one."""


class CheckerLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of a checker process."""

    memory_mb: int
    """Address space, MiB."""
    cpu_s: int
    """CPU seconds for one answer. The pool's deadline comes first unless the pool is unable to kill."""


class ReadySignal(msgspec.Struct, frozen=True, kw_only=True):
    """First frame from the fork server and from every checker."""

    pid: int
    error: str = ""
    """Why the verifier cannot be loaded, in one sentence; empty when it was loaded."""
    lane: str = ""
    """Lane of the verifier; empty in the frame of a checker."""
    restrictions: dict[str, bool] = {}
    """What a checker cannot do on this machine, as tried out by `sandbox.probe_restrictions`."""


def main() -> None:
    """Runs the fork server. Arguments: control descriptor, verifier name, its options as JSON, its limits as JSON."""
    limits = msgspec.json.decode(sys.argv[4], type=CheckerLimits)
    control = socket.socket(fileno=int(sys.argv[1]))
    # Ctrl-C goes to the whole process group; the service decides when this process ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        verifier = load_verifier(sys.argv[2], msgspec.json.decode(sys.argv[3]))
    except UserError as e:
        control.sendall(encode_frame(ReadySignal(pid=os.getpid(), error=str(e))))
        return
    restrictions = _enforce_restrictions(verifier)
    control.sendall(encode_frame(ReadySignal(pid=os.getpid(), lane=verifier.lane, restrictions=restrictions)))
    gc.collect()
    gc.freeze()  # a collection in a forked process would write to, and so copy, what it shares with this one
    take_orders(control, lambda channel: _become_checker(channel, verifier, verifier.name, limits))


def _enforce_restrictions(verifier: Verifier) -> dict[str, bool]:
    """Enters the namespaces of the isolated lane, and returns which restrictions hold for checkers."""
    if verifier.lane == "program":
        return {}
    own_ids = {"own process ids": enter_namespaces()} if verifier.lane == "isolated" else {}
    return {**probe_restrictions(network=verifier.lane == "network", files=verifier.reads_files), **own_ids}


def encode_frame(message: object) -> bytes:
    """Encodes a message with its length in front."""
    body = msgspec.msgpack.encode(message)
    return LENGTH.pack(len(body)) + body


def take_orders(control: socket.socket, become: Callable[[socket.socket], None]) -> None:
    """Takes orders until the control socket closes, then kills the remaining children.

    `become` runs a forked child, which serves a channel, from its start to its end; it never returns.
    """
    children: set[int] = set()
    while order := _next_order(control):
        message, descriptors = order
        children -= _reap()
        if message.kill in children:
            _kill(message.kill)
        for descriptor in descriptors:
            pid = os.fork()
            if pid == 0:
                control.close()
                become(socket.socket(fileno=descriptor))
            os.close(descriptor)
            children.add(pid)
    for pid in children - _reap():
        _kill(pid)


def _kill(pid: int) -> None:
    """Kills a checker and whatever it has started; together they are one process group."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:  # the checker has not made its process group yet
        os.kill(pid, signal.SIGKILL)


def _next_order(control: socket.socket) -> tuple[ForkOrder, list[int]] | None:
    """The next order, or None at the end. SOCK_SEQPACKET keeps orders apart."""
    data, descriptors, _, _ = socket.recv_fds(control, 4096, 4)
    return (msgspec.msgpack.decode(data, type=ForkOrder), descriptors) if data else None


def _reap() -> set[int]:
    """The children that have ended, and the orphans of checkers, which process 1 of a PID namespace inherits.

    Nothing else reaps, so that no other process can have the id of a child that has not been returned from here.
    """
    ended: set[int] = set()
    with contextlib.suppress(ChildProcessError):
        while pid := os.waitpid(-1, os.WNOHANG)[0]:
            ended.add(pid)
    return ended


# --- the checker -----------------------------------------------------------------------------------------------------


def _become_checker(channel: socket.socket, verifier: Verifier, name: str, limits: CheckerLimits) -> None:
    """Runs a forked checker from its start to its end; never returns."""
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
        channel.sendall(encode_frame(ReadySignal(pid=os.getpid())))
        serve_channel(channel, verifier, name, limits.cpu_s if verifier.lane in ("fast", "network") else 0)
        code = 0
    except (BrokenPipeError, ConnectionResetError):
        code = 0  # the pool has closed the channel and waits for no answer
    finally:
        os._exit(code)


def serve_channel(channel: socket.socket, verifier: Verifier, name: str, cpu_s: int) -> None:
    """Reads batches and answers each item as soon as it is judged, so that the first unanswered item is the culprit.

    The kernel's CPU limit counts for a whole process. In a process that judges many answers, a timer that is set again
    for each answer takes its place; it kills with SIGPROF.
    """
    read, decoder = channel.makefile("rb").read, msgspec.msgpack.Decoder(list[VerifyItem])
    while len(head := read(LENGTH.size)) == LENGTH.size:
        for item in decoder.decode(read(LENGTH.unpack(head)[0])):
            signal.setitimer(signal.ITIMER_PROF, cpu_s)
            channel.sendall(encode_frame(judge_item(verifier, name, item)))


def judge_item(verifier: Verifier, name: str, item: VerifyItem) -> Verdict:
    """Returns the verdict on one item, with the verifier's name, the time it took and the counts of search steps."""
    start = time.perf_counter()
    try:
        verdict = verifier.judge_item(item)
    except MemoryError:
        verdict = Verdict(status="error", detail="out of memory")
    except Exception as e:  # noqa: BLE001  any fault of a verifier becomes a verdict with the status error
        verdict = Verdict(status="error", detail=f"{type(e).__name__}: {e}")
    return msgspec.structs.replace(
        verdict,
        parts=with_counts(name, item.prompt, item.response, item.answer, verdict.parts),
        verifier=verdict.verifier or name,
        milliseconds=(time.perf_counter() - start) * 1e3,
        extracted=verdict.extracted[:MAX_TEXT_CHARS],
        detail=verdict.detail[:MAX_TEXT_CHARS],
    )


if __name__ == "__main__":
    main()
