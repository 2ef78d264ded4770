"""The allow-list of system calls of a confined process, and the seccomp filter that the kernel runs for it.

    program = build_filter("x86_64", network=False, files=False)      # bytes for prctl(PR_SET_SECCOMP), or None
    allowed_calls(network=False, files=False)["fcntl"]                # the conditions on its arguments

A call is allowed if its name is in a table below and its arguments meet the conditions beside it. Every other call,
also one that a later kernel adds, is answered with EPERM. A call of another architecture (32-bit calls by int 0x80 on
x86-64) kills the process; the x32 calls of x86-64 have numbers of their own, which are in no table.

No allowed call names another process: those that take a process id (prlimit64, sched_getaffinity) are allowed for the
id 0, which is the caller, and clocks are allowed by their small fixed numbers, not those of other processes' CPU time.
No allowed call creates a process or a thread, sends a signal, or changes a file.

Sources: the kernel's BPF interpreter (Documentation/userspace-api/seccomp_filter.rst) and its tables of system calls
(arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

_ALLOW, _KILL, _EPERM = 0x7FFF0000, 0x80000000, 0x00050001
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
"""For each machine: the kernel's number of the architecture, and the column of NUMBERS."""

Line = tuple[int, int, int, int]


class OneOf(NamedTuple):
    """The lower 32 bits of an argument, without the bits of `ignored`, must be one of `values`."""

    argument: int
    values: tuple[int, ...]
    ignored: int = 0

    def lines(self) -> list[Line]:
        """Instructions that return EPERM unless the condition is met."""
        masked = [(_AND, 0, 0, 0xFFFFFFFF ^ self.ignored)] if self.ignored else []
        tests = [(_EQUAL, len(self.values) - i, 0, value) for i, value in enumerate(self.values)]
        return [_load(self.argument), *masked, *tests, (_RETURN, 0, 0, _EPERM)]


class NoBit(NamedTuple):
    """The lower 32 bits of an argument must have none of the bits of `mask`."""

    argument: int
    mask: int

    def lines(self) -> list[Line]:
        """Instructions that return EPERM unless the condition is met."""
        return [_load(self.argument), (_ANY_BIT, 0, 1, self.mask), (_RETURN, 0, 0, _EPERM)]


class Below(NamedTuple):
    """The lower 32 bits of an argument, without sign, must be below `limit`."""

    argument: int
    limit: int

    def lines(self) -> list[Line]:
        """Instructions that return EPERM unless the condition is met."""
        return [_load(self.argument), (_AT_LEAST, 0, 1, self.limit), (_RETURN, 0, 0, _EPERM)]


class Zero(NamedTuple):
    """All 64 bits of an argument must be 0."""

    argument: int

    def lines(self) -> list[Line]:
        """Instructions that return EPERM unless the condition is met."""
        refused = (_RETURN, 0, 0, _EPERM)
        return [
            _load(self.argument),
            (_EQUAL, 1, 0, 0),
            refused,
            _load(self.argument, upper=True),
            (_EQUAL, 1, 0, 0),
            refused,
        ]


Condition = OneOf | NoBit | Below | Zero
Calls = Mapping[str, tuple[Condition, ...]]

_F_DUPFD, _F_GETFD, _F_SETFD, _F_GETFL, _F_SETFL, _F_DUPFD_CLOEXEC = 0, 1, 2, 3, 4, 1030
_O_ASYNC = 0x2000
_TCGETS, _TIOCGWINSZ, _FIONREAD, _FIONBIO, _FIONCLEX, _FIOCLEX = 0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451
_FUTEX_WAIT, _FUTEX_WAKE, _FUTEX_WAIT_BITSET, _FUTEX_WAKE_BITSET = 0, 1, 9, 10
_FUTEX_PRIVATE_OR_REALTIME = 128 | 256
_MAP_LOCKED, _MAP_HUGETLB = 0x2000, 0x40000
_ADVICE = (0, 1, 2, 3, 4, 8, 14, 15)
"""NORMAL, RANDOM, SEQUENTIAL, WILLNEED, DONTNEED, FREE, HUGEPAGE, NOHUGEPAGE; not MERGEABLE, which shares pages with
other processes and thereby shows what they hold."""
_NUM_FIXED_CLOCKS = 12
"""Clocks with a higher number (a negative one) are made from the number of a process or a file descriptor."""
_AF_INET, _AF_INET6 = 2, 10
_WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | _O_ASYNC

_ALWAYS: Calls = {
    # memory
    **dict.fromkeys(("munmap", "mremap", "mprotect", "brk"), ()),
    "mmap": (NoBit(3, _MAP_LOCKED | _MAP_HUGETLB),),
    "madvise": (OneOf(2, _ADVICE),),
    # descriptors that are open, and new ones that lead to this process only
    **dict.fromkeys(("read", "readv", "write", "writev", "close", "fstat", "lseek", "recvfrom"), ()),
    **dict.fromkeys(("dup", "dup2", "dup3", "pipe", "pipe2", "eventfd2"), ()),
    "sendto": (Zero(4),),
    "fcntl": (OneOf(1, (_F_DUPFD, _F_GETFD, _F_SETFD, _F_GETFL, _F_DUPFD_CLOEXEC)),),
    "ioctl": (OneOf(1, (_TCGETS, _TIOCGWINSZ, _FIONREAD, _FIONCLEX, _FIOCLEX)),),
    # waiting
    **dict.fromkeys(("poll", "ppoll", "select", "pselect6", "nanosleep", "sched_yield", "restart_syscall"), ()),
    **dict.fromkeys(("epoll_create", "epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait"), ()),
    "futex": (
        OneOf(
            1,
            (_FUTEX_WAIT, _FUTEX_WAKE, _FUTEX_WAIT_BITSET, _FUTEX_WAKE_BITSET),
            ignored=_FUTEX_PRIVATE_OR_REALTIME,
        ),
    ),
    "wait4": (),
    # clocks and this process's own timers
    **dict.fromkeys(("clock_gettime", "clock_getres", "clock_nanosleep"), (Below(0, _NUM_FIXED_CLOCKS),)),
    **dict.fromkeys(("time", "times", "gettimeofday", "getitimer", "setitimer", "alarm"), ()),
    # handlers of this process's own signals
    **dict.fromkeys(("rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack"), ()),
    # facts about this process
    **dict.fromkeys(("getpid", "getppid", "gettid", "getuid", "geteuid", "getgid", "getegid"), ()),
    **dict.fromkeys(("getrlimit", "getrusage", "uname", "getrandom"), ()),
    "prlimit64": (OneOf(0, (0,)), Zero(2)),
    "sched_getaffinity": (OneOf(0, (0,)),),
    # the end
    **dict.fromkeys(("exit", "exit_group"), ()),
}
_FILES: Calls = {
    "open": (NoBit(1, _WRITE_FLAGS),),
    "openat": (NoBit(2, _WRITE_FLAGS),),
    **dict.fromkeys(("stat", "lstat", "newfstatat", "statx", "access", "faccessat", "faccessat2"), ()),
    **dict.fromkeys(("readlink", "readlinkat", "getdents64", "getcwd", "chdir", "fchdir"), ()),
    **dict.fromkeys(("pread64", "preadv", "statfs", "fstatfs", "fadvise64", "sysinfo"), ()),
}
_NETWORK: Calls = {
    "socket": (OneOf(0, (_AF_INET, _AF_INET6)),),
    **dict.fromkeys(("connect", "bind", "getsockname", "getpeername", "getsockopt", "shutdown"), ()),
    **dict.fromkeys(("sendto", "sendmsg", "sendmmsg", "recvmsg", "recvmmsg"), ()),
    # levels IP, SOCKET, TCP, IPv6; an option above 25 of SOCKET may attach a program
    "setsockopt": (OneOf(1, (0, 1, 6, 41)), Below(2, 26)),
    "fcntl": (
        OneOf(1, (_F_DUPFD, _F_GETFD, _F_SETFD, _F_GETFL, _F_SETFL, _F_DUPFD_CLOEXEC)),
        NoBit(2, _O_ASYNC),
    ),
    "ioctl": (OneOf(1, (_TCGETS, _TIOCGWINSZ, _FIONREAD, _FIONBIO, _FIONCLEX, _FIOCLEX)),),
}

NUMBERS: dict[str, tuple[int | None, int | None]] = {
    "access": (21, None),
    "alarm": (37, None),
    "bind": (49, 200),
    "brk": (12, 214),
    "chdir": (80, 49),
    "clock_getres": (229, 114),
    "clock_gettime": (228, 113),
    "clock_nanosleep": (230, 115),
    "close": (3, 57),
    "connect": (42, 203),
    "dup": (32, 23),
    "dup2": (33, None),
    "dup3": (292, 24),
    "epoll_create": (213, None),
    "epoll_create1": (291, 20),
    "epoll_ctl": (233, 21),
    "epoll_pwait": (281, 22),
    "epoll_wait": (232, None),
    "eventfd2": (290, 19),
    "exit": (60, 93),
    "exit_group": (231, 94),
    "faccessat": (269, 48),
    "faccessat2": (439, 439),
    "fadvise64": (221, 223),
    "fchdir": (81, 50),
    "fcntl": (72, 25),
    "fstat": (5, 80),
    "fstatfs": (138, 44),
    "futex": (202, 98),
    "getcwd": (79, 17),
    "getdents64": (217, 61),
    "getegid": (108, 177),
    "geteuid": (107, 175),
    "getgid": (104, 176),
    "getitimer": (36, 102),
    "getpeername": (52, 205),
    "getpid": (39, 172),
    "getppid": (110, 173),
    "getrandom": (318, 278),
    "getrlimit": (97, 163),
    "getrusage": (98, 165),
    "getsockname": (51, 204),
    "getsockopt": (55, 209),
    "gettid": (186, 178),
    "gettimeofday": (96, 169),
    "getuid": (102, 174),
    "ioctl": (16, 29),
    "lseek": (8, 62),
    "lstat": (6, None),
    "madvise": (28, 233),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "mremap": (25, 216),
    "munmap": (11, 215),
    "nanosleep": (35, 101),
    "newfstatat": (262, 79),
    "open": (2, None),
    "openat": (257, 56),
    "pipe": (22, None),
    "pipe2": (293, 59),
    "poll": (7, None),
    "ppoll": (271, 73),
    "pread64": (17, 67),
    "preadv": (295, 69),
    "prlimit64": (302, 261),
    "pselect6": (270, 72),
    "read": (0, 63),
    "readlink": (89, None),
    "readlinkat": (267, 78),
    "readv": (19, 65),
    "recvfrom": (45, 207),
    "recvmmsg": (299, 243),
    "recvmsg": (47, 212),
    "restart_syscall": (219, 128),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sched_getaffinity": (204, 123),
    "sched_yield": (24, 124),
    "select": (23, None),
    "sendmmsg": (307, 269),
    "sendmsg": (46, 211),
    "sendto": (44, 206),
    "setitimer": (38, 103),
    "setsockopt": (54, 208),
    "shutdown": (48, 210),
    "sigaltstack": (131, 132),
    "socket": (41, 198),
    "stat": (4, None),
    "statfs": (137, 43),
    "statx": (332, 291),
    "sysinfo": (99, 179),
    "time": (201, None),
    "times": (100, 153),
    "uname": (63, 160),
    "wait4": (61, 260),
    "write": (1, 64),
    "writev": (20, 66),
}
"""Numbers of the allowed calls on x86-64 and on aarch64; None: the call does not exist there."""


def allowed_calls(*, network: bool, files: bool) -> dict[str, tuple[Condition, ...]]:
    """Returns the calls that a process may make, each with the conditions on its arguments.

    Args:
        network: whether it may open connections.
        files: whether it may open files for reading.
    """
    return {**_ALWAYS, **(_FILES if files else {}), **(_NETWORK if network else {})}


@lru_cache(maxsize=8)
def build_filter(machine: str, *, network: bool, files: bool) -> bytes | None:
    """Assembles the filter.

    Args:
        machine: what `platform.machine()` says.
        network: as for `allowed_calls`.
        files: as for `allowed_calls`.

    Returns:
        The program, 8 bytes an instruction, or None for a machine whose numbers are not in the table.
    """
    if machine not in ARCHITECTURES:
        return None
    architecture, column = ARCHITECTURES[machine]
    lines: list[Line] = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, 0)]
    calls = allowed_calls(network=network, files=files)
    for name in sorted(calls, key=lambda name: not calls[name]):  # the kernel remembers calls without conditions
        number = NUMBERS[name][column]
        if number is None:
            continue
        block = [line for condition in calls[name] for line in condition.lines()]
        lines += [(_EQUAL, 0, len(block) + 1, number), *block, (_RETURN, 0, 0, _ALLOW)]
    lines.append((_RETURN, 0, 0, _EPERM))
    return b"".join(struct.pack("<HBBI", *line) for line in lines)


def _load(argument: int, *, upper: bool = False) -> Line:
    """Loads half an argument of the call; both machines are little-endian."""
    return (_LOAD, 0, 0, 16 + 8 * argument + 4 * upper)
