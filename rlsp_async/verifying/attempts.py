"""What a confined process must not be able to do, as attempts that are harmless where they succeed.

    for attempt in ATTEMPTS:
        attempt.is_refused(victim)       # victim: a process that exists to be attacked

`sandbox.probe_restrictions` runs them in a confined child when a verifier starts, against a process that was forked for
it. An attempt is refused if the kernel answers that it is not permitted, does not exist, or that there is no such
process. An answer that is about the arguments (EINVAL, EFAULT, ENOENT ...) shows that the call was carried out up to
them, so such an attempt counts as a success of the attacker. Attempts choose values that change nothing: signal 0, the
priority that the victim has, a clock that is not set.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import socket
import struct
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from rlsp_async.verifying.seccomp import ARCHITECTURES

_REACHED = frozenset(
    {
        errno.EINVAL,
        errno.EFAULT,
        errno.ENOENT,
        errno.EBADF,
        errno.ENOTDIR,
        errno.EEXIST,
        errno.ENOTTY,
        errno.ENOKEY,
        errno.ENOTBLK,
        errno.ENODEV,
        errno.ENXIO,
        errno.ECONNREFUSED,
        errno.EDESTADDRREQ,
        errno.E2BIG,
    }
)
_AT_FDCWD = -100
_NOWHERE = b"/rlsp-nowhere"
_KEY = 0x72736C70
"""Key of a System V object that does not exist."""

NUMBERS: dict[str, tuple[int, int]] = {
    "acct": (163, 89),
    "add_key": (248, 217),
    "bpf": (321, 280),
    "chroot": (161, 51),
    "clock_adjtime": (305, 266),
    "clock_gettime": (228, 113),
    "clone": (56, 220),
    "clone3": (435, 435),
    "execve": (59, 221),
    "execveat": (322, 281),
    "fanotify_init": (300, 262),
    "fcntl": (72, 25),
    "flock": (73, 32),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "futex": (202, 98),
    "getpgid": (121, 155),
    "inotify_init1": (294, 26),
    "io_uring_setup": (425, 425),
    "ioctl": (16, 29),
    "ioprio_set": (251, 30),
    "kcmp": (312, 272),
    "keyctl": (250, 219),
    "kill": (62, 129),
    "linkat": (265, 37),
    "memfd_create": (319, 279),
    "migrate_pages": (256, 238),
    "mkdirat": (258, 34),
    "mknodat": (259, 33),
    "mount": (165, 40),
    "move_pages": (279, 239),
    "mq_open": (240, 180),
    "msgget": (68, 186),
    "newfstatat": (262, 79),
    "openat": (257, 56),
    "openat2": (437, 437),
    "perf_event_open": (298, 241),
    "personality": (135, 92),
    "pidfd_getfd": (438, 438),
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
    "prctl": (157, 167),
    "prlimit64": (302, 261),
    "process_madvise": (440, 440),
    "process_vm_readv": (310, 270),
    "ptrace": (101, 117),
    "quotactl": (179, 60),
    "readlinkat": (267, 78),
    "reboot": (169, 142),
    "renameat2": (316, 276),
    "request_key": (249, 218),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "sched_getaffinity": (204, 123),
    "sched_setaffinity": (203, 122),
    "sched_setattr": (314, 274),
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
    "seccomp": (317, 277),
    "semget": (64, 190),
    "sendto": (44, 206),
    "setns": (308, 268),
    "setpgid": (109, 154),
    "setpriority": (141, 140),
    "setsid": (112, 157),
    "settimeofday": (164, 170),
    "setuid": (105, 146),
    "shmget": (29, 194),
    "socketpair": (53, 199),
    "statfs": (137, 43),
    "statx": (332, 291),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "symlinkat": (266, 36),
    "syslog": (103, 116),
    "tgkill": (234, 131),
    "timer_create": (222, 107),
    "tkill": (200, 130),
    "truncate": (76, 45),
    "umount2": (166, 39),
    "unlinkat": (263, 35),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
    "utimensat": (280, 88),
    "fchmodat": (268, 53),
    "fchownat": (260, 54),
    "setxattr": (188, 5),
}
"""Numbers of the attempted calls on x86-64 and on aarch64."""


class Victim(NamedTuple):
    """A process that exists to be attacked."""

    pid: int
    """Its id, as the attacker would use it in a system call."""
    proc: str
    """The name of its directory in /proc, which may be mounted for another PID namespace; empty: /proc is missing."""
    path: str
    """A file beside it that may be destroyed; empty: none could be made."""


class Attempt(NamedTuple):
    """One way to do what is forbidden."""

    what: str
    """The restriction that the attempt is about, e.g. "no signals"."""
    how: str
    """The route, e.g. "fcntl F_SETOWN"."""
    act: Callable[[Victim], object]
    """Does it to the victim; raises OSError when the kernel refuses."""

    def is_refused(self, victim: Victim) -> bool:
        """Whether the kernel refuses."""
        try:
            self.act(victim)
        except OSError as e:
            return e.errno not in _REACHED
        return False


def _call(name: str, *arguments: int | bytes) -> int:
    """Makes a system call; bytes are passed by their address.

    Raises:
        OSError: the call failed, or its number on this machine is not known (ENOSYS).
    """
    if platform.machine() not in ARCHITECTURES:
        raise OSError(errno.ENOSYS, name)
    number = NUMBERS[name][ARCHITECTURES[platform.machine()][1]]
    converted = [ctypes.c_char_p(a) if isinstance(a, bytes) else ctypes.c_long(a) for a in arguments]
    result: int = _libc().syscall(ctypes.c_long(number), *converted)
    if result < 0:
        raise OSError(ctypes.get_errno(), name)
    return result


@lru_cache(maxsize=1)
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    return libc


def _calls(what: str, name: str, *arguments: int | bytes | None, how: str = "") -> Attempt:
    """An attempt by one system call; None among the arguments stands for the id of the victim."""
    return Attempt(
        what,
        how or name,
        lambda victim: _call(name, *(victim.pid if argument is None else argument for argument in arguments)),
    )


# --- attempts that take more than one call ---------------------------------------------------------------------------


def _open_socket(family: int, kind: int = socket.SOCK_STREAM) -> Callable[[Victim], object]:
    return lambda _: socket.socket(family, kind).close()


def _connect_abstract(_: Victim) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(b"\0rlsp-nowhere")


def _open_to_write(victim: Victim) -> None:
    os.close(os.open(victim.path or _NOWHERE, os.O_WRONLY | os.O_APPEND))


def _on_path(what: str, name: str, arguments: Callable[[bytes], tuple[int | bytes, ...]]) -> Attempt:
    """An attempt by a system call on the victim's file."""
    return Attempt(what, name, lambda victim: _call(name, *arguments(victim.path.encode() or _NOWHERE)))


def _fork(_: Victim) -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def _fcntl(command: int, value: Callable[[int], int | bytes]) -> Callable[[Victim], object]:
    """Calls fcntl on a pipe of this process."""

    def act(victim: Victim) -> None:
        reader, writer = os.pipe()
        try:
            _call("fcntl", reader, command, value(victim.pid))
        finally:
            os.close(reader)
            os.close(writer)

    return act


def _ioctl(request: int) -> Callable[[Victim], object]:
    """Passes a process id by ioctl, on a pipe; a file that knows the request would obey it."""

    def act(victim: Victim) -> None:
        reader, writer = os.pipe()
        try:
            _call("ioctl", reader, request, struct.pack("i", victim.pid))
        finally:
            os.close(reader)
            os.close(writer)

    return act


def _signal_info(code: int = -1) -> bytes:
    return struct.pack("iii", 0, 0, code).ljust(128, b"\0")


def _set_affinity(victim: Victim) -> None:
    _call("sched_setaffinity", victim.pid, 128, b"\xff" * 128)


def _set_priority(victim: Victim) -> None:
    _call("setpriority", os.PRIO_PROCESS, victim.pid, 19)


def _lend_priority(victim: Victim) -> None:
    """Asks for a lock that the victim seems to hold, which lends it the priority of this process."""
    try:
        _call("futex", struct.pack("I", victim.pid).ljust(8, b"\0"), 8, 0, 0, 0, 0)
    except BlockingIOError:
        return


def _open_in_proc(name: str) -> Callable[[Victim], object]:
    def act(victim: Victim) -> None:
        if not victim.proc:
            raise OSError(errno.ESRCH, "no /proc")
        os.close(os.open(f"/proc/{victim.proc}/{name}", os.O_RDONLY))

    return act


def _read_clock_of(victim: Victim) -> None:
    """Reads the CPU time of another process: the clock's number is made from the id of the process."""
    _call("clock_gettime", ((~victim.pid) << 3) | 2, bytes(16))


def _pidfd_signal(victim: Victim) -> None:
    descriptor = _call("pidfd_open", victim.pid, 0)
    try:
        _call("pidfd_send_signal", descriptor, 0, 0, 0)
    finally:
        os.close(descriptor)


_VM = struct.pack("@PN", 0, 0)
_SCHED_ATTR = struct.pack("<IIQiIQQQ", 48, 3, 0, 0, 0, 0, 0, 0)

ATTEMPTS: tuple[Attempt, ...] = (
    Attempt("no network", "socket AF_INET", _open_socket(socket.AF_INET)),
    Attempt("no network", "socket AF_INET6", _open_socket(socket.AF_INET6, socket.SOCK_DGRAM)),
    Attempt("no writing", "open", _open_to_write),
    _on_path("no writing", "openat2", lambda path: (_AT_FDCWD, path, struct.pack("<QQQ", os.O_RDWR, 0, 0), 24)),
    _on_path("no writing", "truncate", lambda path: (path, 0)),
    _on_path("no writing", "mkdirat", lambda path: (_AT_FDCWD, path + b".d", 0o700)),
    _on_path("no writing", "mknodat", lambda path: (_AT_FDCWD, path + b".n", 0o600, 0)),
    _on_path("no writing", "symlinkat", lambda path: (path, _AT_FDCWD, path + b".s")),
    _on_path("no writing", "linkat", lambda path: (_AT_FDCWD, path, _AT_FDCWD, path + b".l", 0)),
    _on_path("no writing", "renameat2", lambda path: (_AT_FDCWD, path, _AT_FDCWD, path + b".r", 0)),
    _on_path("no writing", "unlinkat", lambda path: (_AT_FDCWD, path, 0)),
    Attempt("no processes", "fork", _fork),
    _calls("no processes", "clone", 0x00000800, 0, 0, 0, 0),  # CLONE_SIGHAND alone: EINVAL where clone is allowed
    _calls("no processes", "clone3", 0, 0),
    _calls("no processes", "execve", _NOWHERE, 0, 0),
    _calls("no processes", "execveat", _AT_FDCWD, _NOWHERE, 0, 0, 0),
    _calls("no processes", "setpgid", 0, 0),
    _calls("no processes", "setsid"),
    _calls("no signals", "kill", None, 0),
    _calls("no signals", "tkill", None, 0),
    _calls("no signals", "tgkill", None, None, 0),
    _calls("no signals", "rt_sigqueueinfo", None, 0, _signal_info()),
    _calls("no signals", "rt_tgsigqueueinfo", None, None, 0, _signal_info()),
    Attempt("no signals", "pidfd_send_signal", _pidfd_signal),
    Attempt("no signals", "fcntl F_SETOWN", _fcntl(8, lambda victim: victim)),
    Attempt("no signals", "fcntl F_SETOWN_EX", _fcntl(15, lambda victim: struct.pack("ii", 1, victim))),
    Attempt("no signals", "fcntl F_SETSIG", _fcntl(10, lambda _: 9)),
    Attempt("no signals", "fcntl O_ASYNC", _fcntl(4, lambda _: 0x2000)),
    Attempt("no signals", "fcntl F_SETLEASE", _fcntl(1024, lambda _: 0)),
    Attempt("no signals", "fcntl F_NOTIFY", _fcntl(1026, lambda _: 2)),
    Attempt("no signals", "ioctl FIOSETOWN", _ioctl(0x8901)),
    Attempt("no signals", "ioctl SIOCSPGRP", _ioctl(0x8902)),
    Attempt("no signals", "ioctl FIOASYNC", _ioctl(0x5452)),
    Attempt("no signals", "ioctl TIOCSTI", _ioctl(0x5412)),
    Attempt("no signals", "ioctl TIOCSPGRP", _ioctl(0x5410)),
    Attempt(
        "no signals",
        "timer_create for another thread",
        lambda victim: _call("timer_create", 1, struct.pack("@PiiI", 0, 0, 4, victim.pid).ljust(64, b"\0"), bytes(8)),
    ),
    Attempt("no scheduling", "setpriority", _set_priority),
    Attempt("no scheduling", "sched_setaffinity", _set_affinity),
    _calls("no scheduling", "sched_setscheduler", None, 3, struct.pack("i", 0)),
    _calls("no scheduling", "sched_setparam", None, struct.pack("i", 0)),
    _calls("no scheduling", "sched_setattr", None, _SCHED_ATTR, 0),
    _calls("no scheduling", "ioprio_set", 1, None, 2 << 13 | 7),
    _calls("no scheduling", "prlimit64", None, 7, struct.pack("<QQ", 1 << 10, 1 << 10), 0),
    _calls("no scheduling", "migrate_pages", None, 8, bytes(8), bytes(8)),
    _calls("no scheduling", "move_pages", None, 0, 0, 0, 0, 0),
    Attempt("no scheduling", "futex FUTEX_TRYLOCK_PI", _lend_priority),
    _calls("no inspection", "ptrace", 0x4206, None, 0, 0),
    _calls("no inspection", "process_vm_readv", None, _VM, 1, _VM, 1, 0),
    _calls("no inspection", "process_madvise", -1, _VM, 1, 0, 0),
    _calls("no inspection", "kcmp", None, None, 1, 0, 0),
    _calls("no inspection", "pidfd_getfd", -1, 0, 0),
    _calls("no inspection", "getpgid", None),
    _calls("no inspection", "sched_getaffinity", None, 128, bytes(128)),
    Attempt("no inspection", "clock of another process", _read_clock_of),
    Attempt("no inspection", "/proc/PID/mem", _open_in_proc("mem")),
    Attempt("no inspection", "/proc/PID/environ", _open_in_proc("environ")),
    Attempt("no local sockets", "socket AF_UNIX", _open_socket(socket.AF_UNIX)),
    Attempt("no local sockets", "connect to an abstract name", _connect_abstract),
    _calls("no local sockets", "socketpair", 1, 1, 0, bytes(8)),
    _calls("no IPC", "shmget", _KEY, 4096, 0),
    _calls("no IPC", "semget", _KEY, 1, 0),
    _calls("no IPC", "msgget", _KEY, 0),
    _calls("no IPC", "mq_open", b"rlsp-nowhere", 0, 0, 0),
    _calls("no IPC", "add_key", b"user", b"rlsp", b"x", 1, 0),
    _calls("no IPC", "request_key", b"user", b"rlsp", 0, 0),
    _calls("no IPC", "keyctl", 0, -3, 0, 0, 0),
    _calls("no IPC", "memfd_create", b"rlsp", 0),
    _calls("no IPC", "inotify_init1", 0),
    _calls("no IPC", "fanotify_init", 0, 0),
    _calls("no administration", "settimeofday", 0, 0),
    _calls("no administration", "clock_adjtime", 0, struct.pack("<I", 0).ljust(256, b"\0")),
    _calls("no administration", "swapon", _NOWHERE, 0),
    _calls("no administration", "swapoff", _NOWHERE),
    _calls("no administration", "acct", _NOWHERE),
    _calls("no administration", "mount", 0, _NOWHERE, 0, 0, 0),
    _calls("no administration", "umount2", _NOWHERE, 0),
    _calls("no administration", "fsopen", b"rlsp", 0),
    _calls("no administration", "fspick", _AT_FDCWD, _NOWHERE, 0),
    _calls("no administration", "syslog", 10, 0, 0),
    _calls("no administration", "reboot", 0, 0, 0, 0),
    _calls("no administration", "quotactl", 0x800001 << 8, 0, 0, 0),
    _calls("no administration", "chroot", _NOWHERE),
    _calls("no administration", "bpf", 0, bytes(128), 128),
    _calls("no administration", "perf_event_open", bytes(128), 0, -1, -1, 0),
    _calls("no administration", "io_uring_setup", 0, bytes(120)),
    _calls("no administration", "userfaultfd", 1),
    _calls("no administration", "unshare", 0x10000000),
    _calls("no administration", "setns", -1, 0),
    _calls("no administration", "personality", 0xFFFFFFFF),
    _calls("no administration", "setuid", 0),
    _calls("no administration", "prctl", 3, 0, 0, 0, 0),
    _calls("no administration", "seccomp", 2, 0, bytes(4)),
    _calls("no attributes", "fchmodat", _AT_FDCWD, _NOWHERE, 0o600),
    _calls("no attributes", "fchownat", _AT_FDCWD, _NOWHERE, -1, -1, 0),
    _calls("no attributes", "utimensat", _AT_FDCWD, _NOWHERE, 0, 0),
    _calls("no attributes", "setxattr", _NOWHERE, b"user.x", b"x", 1, 0),
    _calls("no attributes", "flock", 0, 8),
    Attempt("no reading", "open", lambda _: os.close(os.open("/", os.O_RDONLY))),
    _calls("no reading", "newfstatat", _AT_FDCWD, b"/", bytes(256), 0, how="stat"),
    _calls("no reading", "statx", _AT_FDCWD, b"/", 0, 1, bytes(256)),
    _calls("no reading", "statfs", b"/", bytes(256)),
    Attempt("no reading", "access", lambda _: None if os.access("/", os.F_OK) else _refuse()),
    _calls("no reading", "readlinkat", _AT_FDCWD, b"/proc/self/exe", bytes(256), 255),
)
"""All attempts; those of one restriction follow one another."""

IGNORED_WITH_FILES = "no reading"
"""The restriction that is not tried where files may be read."""


def _refuse() -> None:
    raise PermissionError(errno.EACCES, "access")
