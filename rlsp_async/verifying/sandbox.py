"""What a checker process is forbidden to do: use the network, start a process, write to any file system.

    confine(memory_mb=2048)      # for the rest of this process; no privilege is needed
    probe_restrictions()         # {"no network": True, "no writing": True, ...}: each tried out in a confined child

The kernel enforces it in three independent layers, so that a kernel without one of them still enforces the others:
resource limits, Landlock (Linux 5.13 and later), and a seccomp filter (x86-64) that answers EPERM. The channel to the
pool is open before and stays usable.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import socket
import struct
import sys
from collections.abc import Callable

from rlsp_async.processes import kill_with_parent

_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 22, 38
_ARCH_X86_64 = 0xC000003E
_ALLOW, _KILL, _EPERM = 0x7FFF0000, 0x80000000, 0x00050001
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

# Numbers of system calls on x86-64.
_SOCKETS = (41, 42, 43, 49, 50, 53, 288)
"""socket connect accept bind listen socketpair accept4."""
_PROCESSES = (56, 57, 58, 435, 59, 322)
"""clone fork vfork clone3 execve execveat."""
_SIGNALS = (62, 129, 200, 234, 101, 310, 311, 424, 434, 438)
"""kill and its relatives, ptrace, process_vm_*, pidfd_*."""
_CHANGES = (76, 77, 82, 83, 84, 85, 86, 87, 88, 90, 91, 92, 93, 94, 132, 133, 235)
"""truncate rename mkdir unlink chmod ..."""
_CHANGES_AT = (258, 259, 260, 261, 263, 264, 265, 266, 268, 280, 316, 437, 452)
"""The same calls with a directory descriptor (renameat, mkdirat, ...); openat2."""
_ATTRIBUTES = (188, 189, 190, 197, 198, 199)
"""Extended attributes."""
_SYSTEM = (155, 161, 165, 166, 169, 170, 171, 175, 176, 246, 313, 320, 428, 429, 430, 431, 432, 442)
"""Mounts, kernel modules, reboot."""
_GROUPS = (157, 109, 112)
"""prctl setpgid setsid: the process cannot leave its parent and its process group."""
_OTHERS = (29, 68, 240, 160, 302, 250, 272, 298, 304, 308, 319, 321, 323, 425, 426, 427)
"""Shared memory, limits, namespaces."""
_DENIED = (
    *_PROCESSES,
    *_SIGNALS,
    *_CHANGES,
    *_CHANGES_AT,
    *_ATTRIBUTES,
    *_SYSTEM,
    *_GROUPS,
    *_OTHERS,
)
_OPENING = (2, 85, 257)
"""open creat openat. openat2 is always refused."""
_OPEN, _OPENAT = (2, 1), (257, 2)
"""(number, index of the argument that holds the flags)."""
_LANDLOCK_WRITES = 0b1_1111_1111_0010
"""WRITE_FILE, REMOVE_*, MAKE_*: the rights of Landlock's first version that change a file system."""
_LANDLOCK_CREATE, _LANDLOCK_RESTRICT = 444, 446


def confine(memory_mb: int, *, network: bool = False, files: bool = True, cpu_s: int = 0) -> None:
    """Confines this process for the rest of its life, as far as this kernel can. Ends it if its parent has died.

    Args:
        memory_mb: limit of the address space, MiB.
        network: whether sockets may be opened.
        files: whether files may be opened for reading.
        cpu_s: CPU seconds after which the process is killed; 0: no limit.
    """
    os.environ.clear()
    for limit in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE):
        resource.setrlimit(limit, (0, 0))
    if cpu_s:
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    die_with_parent()
    resource.setrlimit(resource.RLIMIT_AS, (memory_mb << 20, memory_mb << 20))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    apply_landlock(libc)
    if platform.machine() == "x86_64":
        apply_seccomp(libc, (*_DENIED, *(() if network else _SOCKETS), *(() if files else _OPENING)))


def die_with_parent() -> None:
    """Has the kernel kill this process when its parent dies; ends it at once if the parent has died (Linux only)."""
    if not kill_with_parent(os.getppid()):
        os._exit(0)


def probe_restrictions(*, network: bool = False, files: bool = True) -> dict[str, bool]:
    """Tries in a confined child what the sandbox should forbid. Call it in a process without threads: it forks.

    Args:
        network: as for `confine`.
        files: as for `confine`; when True, "no reading" is not tried.

    Returns:
        For each restriction ("no network", "no writing", ...) whether the kernel enforces it.
    """
    attempts = {what: attempt for what, attempt in _ATTEMPTS.items() if not (files and what == "no reading")}
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(reader)
            confine(1 << 20, network=network, files=files)
            os.write(writer, bytes(_is_refused(attempt) for attempt in attempts.values()))
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        results = pipe.read()
    os.waitpid(pid, 0)
    return dict(zip(attempts, map(bool, results.ljust(len(attempts), b"\0")), strict=True))


# --- layers ----------------------------------------------------------------------------------------------------------


def apply_landlock(libc: ctypes.CDLL) -> None:
    """Refuses every right that changes a file system: a Landlock ruleset without a rule allows none of them."""
    attributes = ctypes.create_string_buffer(struct.pack("<Q", _LANDLOCK_WRITES), 8)
    ruleset = libc.syscall(_LANDLOCK_CREATE, attributes, 8, 0)
    if ruleset >= 0:
        libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0)
        os.close(ruleset)


def apply_seccomp(libc: ctypes.CDLL, denied: tuple[int, ...]) -> None:
    """Installs the filter that refuses the calls in `denied`."""
    program = _seccomp_program(denied)
    code = ctypes.create_string_buffer(program, len(program))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(program) // 8, ctypes.addressof(code)))
    libc.prctl(_PR_SET_SECCOMP, 2, header, 0, 0)


def _seccomp_program(denied: tuple[int, ...]) -> bytes:
    """The filter: kills other architectures; EPERM for denied calls and for opening to write; allows the rest."""
    lines = [
        (_LOAD, 0, 0, 4),
        (_EQUAL, 1, 0, _ARCH_X86_64),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0),
        (_AT_LEAST, 0, 1, 0x40000000),
        (_RETURN, 0, 0, _EPERM),
    ]
    for number in denied:
        lines += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _EPERM)]
    for number, argument in (_OPEN, _OPENAT):
        lines += [
            (_EQUAL, 0, 4, number),
            (_LOAD, 0, 0, 16 + 8 * argument),
            (_ANY_BIT, 0, 1, _WRITE_FLAGS),
            (_RETURN, 0, 0, _EPERM),
            (_RETURN, 0, 0, _ALLOW),
        ]
    lines.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("<HBBI", *line) for line in lines)


# --- probes ----------------------------------------------------------------------------------------------------------


def _is_refused(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except OSError:
        return True
    return False


def _try_write() -> None:
    path = f"/tmp/rlsp-confine-{os.getpid()}"
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
    os.unlink(path)


def _try_fork() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


_ATTEMPTS: dict[str, Callable[[], object]] = {
    "no network": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM).close(),
    "no writing": _try_write,
    "no reading": lambda: os.close(os.open("/", os.O_RDONLY)),
    "no processes": _try_fork,
    "no signals": lambda: os.kill(os.getppid(), 0),
}
