"""Ways out of a confined process, as system calls of x86-64 with their full effect, and the harness that tries them.

They are written down apart from `rlsp_async.verifying.attempts`, which the product tries by itself at its start.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import resource
import signal
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from rlsp_async.verifying.sandbox import confine

VICTIM = object()
"""Stands for the id of the victim among the arguments of a call."""
CWD = -100
HERE, AWAY = b"/tmp", b"/rlsp-nowhere"
KEY = 0x5E5E
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long
NOBODY = 65534


def call(number: int, *arguments: Any) -> int:
    """A system call; bytes are passed by their address."""
    result: int = LIBC.syscall(
        ctypes.c_long(number),
        *(ctypes.c_char_p(a) if isinstance(a, bytes) else ctypes.c_long(a) for a in arguments),
    )
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def info(signum: int) -> bytes:
    """A siginfo of SI_QUEUE."""
    return struct.pack("iii", signum, 0, -1).ljust(128, b"\0")


def _on_pipe(*calls: tuple[int, Any]) -> Callable[[int], None]:
    """fcntl calls (command, value) on a pipe, into which a byte is then written; a function makes a value of the id."""

    def act(victim: int) -> None:
        reader, writer = os.pipe()
        try:
            for command, value in calls:
                call(72, reader, command, value(victim) if callable(value) else value)
            os.write(writer, b"x")
        finally:
            os.close(reader)
            os.close(writer)

    return act


def _ioctls_on_pipe(*calls: tuple[int, Any]) -> Callable[[int], None]:
    def act(victim: int) -> None:
        reader, writer = os.pipe()
        try:
            for request, value in calls:
                call(16, reader, request, struct.pack("i", value(victim)))
            os.write(writer, b"x")
        finally:
            os.close(reader)
            os.close(writer)

    return act


def _lease(victim: int) -> None:
    descriptor = os.open("/etc/passwd", os.O_RDONLY)
    call(72, descriptor, 1024, 0)


def _notify(victim: int) -> None:
    call(72, os.open("/", os.O_RDONLY), 1026, 0x80000002)


def _read_lock(victim: int) -> None:
    call(72, os.open("/etc/passwd", os.O_RDONLY), 6, struct.pack("hhqqi", 0, 0, 0, 0, 0).ljust(32, b"\0"))


def _pidfd_kill(victim: int) -> None:
    call(424, call(434, victim, 0), signal.SIGKILL, 0, 0)


def _cpu_clock(victim: int) -> None:
    call(228, (~victim << 3) | 2, bytes(16))


def _pidfd_clock(victim: int) -> None:
    call(228, (~0 << 3) | 3, bytes(16))  # the clock of a device behind descriptor 0


def _in_proc(name: str) -> Callable[[int], None]:
    return lambda victim: os.close(os.open(f"/proc/{victim}/{name}", os.O_RDONLY))


def _abstract(victim: int) -> None:
    descriptor = call(41, 1, 1, 0)
    call(49, descriptor, struct.pack("H", 1) + b"\0rlsp-escape", 14)


ATTACKS: dict[str, tuple[Any, ...] | Callable[[int], None]] = {
    # signals
    "kill": (62, VICTIM, 9),
    "kill its group": (62, lambda victim: -os.getpgid(victim), 0),
    "kill everybody": (62, -1, 0),
    "tkill": (200, VICTIM, 9),
    "tgkill": (234, VICTIM, VICTIM, 9),
    "rt_sigqueueinfo, stop": (129, VICTIM, 19, info(19)),
    "rt_tgsigqueueinfo": (297, VICTIM, VICTIM, 9, info(9)),
    "rt_tgsigqueueinfo, stop": (297, VICTIM, VICTIM, 19, info(19)),
    "pidfd_send_signal": _pidfd_kill,
    "F_SETOWN and F_SETSIG": _on_pipe((8, lambda victim: victim), (10, 9), (4, 0x2000)),
    "F_SETOWN_EX": _on_pipe((15, lambda victim: struct.pack("ii", 0, victim)), (10, 9), (4, 0x2000)),
    "F_SETOWN of its group": _on_pipe((8, lambda victim: -victim), (4, 0x2000)),
    "F_SETSIG": _on_pipe((10, 9)),
    "O_ASYNC": _on_pipe((4, 0x2000)),
    "O_NONBLOCK on what is shared": (72, 2, 4, 0x800),
    "F_SETPIPE_SZ": _on_pipe((1031, 1 << 20)),
    "F_SETLEASE": _lease,
    "F_NOTIFY": _notify,
    "F_SETLK": _read_lock,
    "FIOSETOWN and FIOASYNC": _ioctls_on_pipe((0x8901, lambda victim: victim), (0x5452, lambda _: 1)),
    "SIOCSPGRP": _ioctls_on_pipe((0x8902, lambda victim: victim)),
    "FIOASYNC": _ioctls_on_pipe((0x5452, lambda _: 1)),
    "TIOCSTI": (16, 0, 0x5412, b"x"),
    "TIOCSPGRP": (16, 0, 0x5410, struct.pack("i", 1)),
    "TIOCLINUX": (16, 0, 0x541C, b"\x0b"),
    "timer_create for its thread": (
        222,
        1,
        lambda victim: struct.pack("PiiI", 0, 9, 4, victim).ljust(64, b"\0"),
        bytes(8),
    ),
    "mq_notify": (244, 0, bytes(64)),
    "process_mrelease": (448, 0, 0),
    # priorities, processors, limits
    "setpriority": (141, 0, VICTIM, 19),
    "setpriority of a group": (141, 1, lambda victim: os.getpgid(victim), 19),
    "setpriority of a user": (141, 2, 12345, 19),
    "sched_setaffinity": (203, VICTIM, 8, struct.pack("Q", 1)),
    "sched_setscheduler": (144, VICTIM, 5, struct.pack("i", 0)),
    "sched_setparam": (142, VICTIM, struct.pack("i", 0)),
    "sched_setattr": (314, VICTIM, struct.pack("<IIQiIQQQ", 48, 5, 0, 0, 0, 0, 0, 0), 0),
    "ioprio_set": (251, 1, VICTIM, 3 << 13),
    "ioprio_set of a group": (251, 2, lambda victim: os.getpgid(victim), 3 << 13),
    "prlimit of another": (302, VICTIM, 7, struct.pack("QQ", 3, 3), 0),
    "prlimit of itself": (302, 0, 7, struct.pack("QQ", 3, 3), 0),
    "setrlimit": (160, 4, struct.pack("QQ", 0, 0)),
    "migrate_pages": (256, VICTIM, 8, bytes(8), bytes(8)),
    "move_pages": (279, VICTIM, 0, 0, 0, 0, 0),
    "process_madvise": (440, 0, bytes(16), 1, 20, 0),
    "a lock that it holds (PI)": (202, lambda victim: struct.pack("Q", victim), 8, 0, 0, 0, 0),
    "PR_SCHED_CORE": (157, 62, 1, VICTIM, 0, 0),
    "setpgid": (109, VICTIM, 0),
    # looking at it
    "ptrace": (101, 16, VICTIM, 0, 0),
    "ptrace, seize": (101, 0x4206, VICTIM, 0, 0),
    "process_vm_readv": (310, VICTIM, bytes(16), 1, bytes(16), 1, 0),
    "process_vm_writev": (311, VICTIM, bytes(16), 1, bytes(16), 1, 0),
    "kcmp": (312, VICTIM, VICTIM, 1, 0, 0),
    "pidfd_open": (434, VICTIM, 0),
    "pidfd_getfd": (438, 0, 0, 0),
    "its CPU time": _cpu_clock,
    "the clock of a device": _pidfd_clock,
    "getpgid": (121, VICTIM),
    "getsid": (124, VICTIM),
    "getpriority": (140, 0, VICTIM),
    "sched_getaffinity": (204, VICTIM, 8, bytes(8)),
    "sched_getscheduler": (145, VICTIM),
    "get_robust_list": (274, VICTIM, bytes(8), bytes(8)),
    "its limits": (302, VICTIM, 7, 0, bytes(16)),
    "its memory": _in_proc("mem"),
    "its environment": _in_proc("environ"),
    # what outlives the process, or is seen by others
    "semget": (64, KEY, 1, 0o1600),
    "shmget": (29, KEY, 4096, 0o1600),
    "msgget": (68, KEY, 0o1600),
    "mq_open": (240, b"rlsp-escape", 0o102, 0o600, 0),
    "add_key": (248, b"user", b"rlsp-escape", b"x", 1, -4),
    "request_key": (249, b"user", b"rlsp-escape", 0, 0),
    "keyctl": (250, 1, 0),
    "memfd_create": (319, b"x", 0),
    "memfd_secret": (447, 0),
    "inotify_init": (253,),
    "inotify_init1": (294, 0),
    "fanotify_init": (300, 0, 0),
    "an abstract name": _abstract,
    "socketpair": (53, 1, 1, 0, bytes(8)),
    "a raw socket": (41, 17, 3, 0),
    "a socket for a virtual machine": (41, 40, 1, 0),
    "a socket for the kernel's cryptography": (41, 38, 5, 0),
    "syslog": (103, 3, bytes(4096), 4096),
    "flock": (73, 1, 8),
    "pages shared with others (KSM)": (28, 0, 0, 12),
    "huge pages": (9, 0, 1 << 21, 3, 0x40022, -1, 0),
    "locked pages": (9, 0, 4096, 3, 0x2022, -1, 0),
    "mlockall": (151, 1),
    "a socket for the kernel's messages": (41, 16, 3, 0),
    "mincore": (27, 0, 0, bytes(8)),
    "sync": (162,),
    # the machine
    "settimeofday": (164, 0, 0),
    "clock_settime": (227, 0, b"\xff" * 16),
    "clock_adjtime": (305, 0, bytes(256)),
    "adjtimex": (159, bytes(256)),
    "swapon": (167, AWAY, 0),
    "swapoff": (168, AWAY),
    "acct": (163, AWAY),
    "mount": (165, 0, AWAY, 0, 0, 0),
    "umount2": (166, AWAY, 0),
    "pivot_root": (155, AWAY, AWAY),
    "chroot": (161, AWAY),
    "fsopen": (430, b"rlsp", 0),
    "fspick": (433, CWD, AWAY, 0),
    "open_tree": (428, CWD, AWAY, 0),
    "mount_setattr": (442, CWD, AWAY, 0, bytes(32), 32),
    "name_to_handle_at": (303, CWD, HERE, bytes(64), bytes(8), 0),
    "open_by_handle_at": (304, CWD, bytes(64), 0),
    "quotactl": (179, 0x800001 << 8, 0, 0, 0),
    "sethostname": (170, b"", -1),
    "reboot": (169, 0, 0, 0, 0),
    "kexec_load": (246, 0, 0, 0, -1),
    "init_module": (175, 0, 0, 0),
    "delete_module": (176, AWAY, 0),
    "iopl": (172, 0),
    "ioperm": (173, 0, 1, 0),
    "modify_ldt": (154, 0, 0, 0),
    "vhangup": (153,),
    "bpf": (321, 0, bytes(128), 128),
    "perf_event_open": (298, bytes(128), 0, -1, -1, 0),
    "io_uring_setup": (425, 1, bytes(120)),
    "userfaultfd": (323, 1),
    "unshare": (272, 0x10000000),
    "setns": (308, 0, 0),
    "setuid": (105, 0),
    "setresuid": (117, -1, -1, -1),
    "setgroups": (116, 0, 0),
    "capset": (126, struct.pack("Ii", 0x20080522, 0), bytes(24)),
    "personality": (135, 0xFFFFFFFF),
    "arch_prctl": (158, 0x1003, bytes(8)),
    "PR_SET_PDEATHSIG": (157, 1, 0, 0, 0, 0),
    "PR_SET_PTRACER": (157, 0x59616D61, -1, 0, 0, 0),
    "seccomp": (317, 2, 0, struct.pack("I", 0x7FFF0000)),
    "landlock": (444, 0, 0, 1),
    # processes
    "clone": (56, 0x800, 0, 0, 0, 0),
    "clone3": (435, 0, 0),
    "vfork by clone": (56, 0x4800, 0, 0, 0, 0),
    "execve": (59, AWAY, 0, 0),
    "execveat": (322, CWD, AWAY, 0, 0, 0),
    "setsid": (112,),
    "uselib": (134, AWAY),
    # files
    "creat": (85, AWAY + b"/x", 0o600),
    "open to write": (2, b"/tmp/rlsp-escape", 0o102, 0o600),
    "openat2": (437, CWD, HERE, bytes(24), 24),
    "O_TMPFILE": (257, CWD, HERE, 0o20200002, 0o600),
    "truncate": (76, AWAY, 0),
    "unlink": (87, AWAY),
    "renameat2": (316, CWD, AWAY, CWD, AWAY, 0),
    "chmod": (90, AWAY, 0),
    "fchmodat2": (452, CWD, AWAY, 0, 0),
    "utimensat": (280, CWD, AWAY, 0, 0),
    "setxattr": (188, AWAY, b"user.x", b"x", 1, 0),
    "a call by its x32 number": (0x40000000 | 39,),
    "a call of a later kernel": (900,),
}
READS = {
    "open": (2, HERE, 0),
    "openat": (257, CWD, HERE, 0),
    "openat, path only": (257, CWD, HERE, os.O_PATH),
    "stat": (4, HERE, bytes(256)),
    "newfstatat": (262, CWD, HERE, bytes(256), 0),
    "newfstatat of a descriptor": (262, 0, b"", bytes(256), 0x1000),
    "statx": (332, CWD, HERE, 0, 1, bytes(256)),
    "access": (21, HERE, 0),
    "faccessat2": (439, CWD, HERE, 0, 0),
    "readlink": (89, b"/proc/self/exe", bytes(256), 255),
    "statfs": (137, HERE, bytes(256)),
    "getcwd": (79, bytes(256), 256),
    "chdir": (80, HERE),
    "getxattr": (191, HERE, b"user.x", 0, 0),
    "sysinfo": (99, bytes(256)),
}


class Outcome(NamedTuple):
    """What came of a series of attacks."""

    answers: dict[str, int]
    """For each attack the error number that the kernel answered; 0: it succeeded; 1 (EPERM): refused."""
    harm: list[str]
    """What has changed about the victim, and what was left behind."""


def attempt(names: dict[str, Any], uid: int, **options: Any) -> Outcome:
    """Runs attacks in a child that is confined with `options`, as a user, against another child of the same user."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            os.setpgid(0, 0)
            if uid != os.getuid():
                os.setgroups([])
                os.setresgid(uid, uid, uid)
                os.setresuid(uid, uid, uid)
            with os.fdopen(writer, "w") as report:
                json.dump(_attempt(names, options), report)
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as report:
        answers, harm = json.load(report)
    os.waitpid(child, 0)
    return Outcome(answers, harm)


def _attempt(names: dict[str, Any], options: dict[str, Any]) -> tuple[dict[str, int], list[str]]:
    victim = os.fork()
    if victim == 0:
        os.setpgid(0, 0)
        signal.pause()
    while os.getpgid(victim) != victim:
        pass
    before = state_of(victim)
    reader, writer = os.pipe()
    attacker = os.fork()
    if attacker == 0:
        confine(1 << 20, **options)
        for attack in names.values():
            os.write(writer, bytes([_answer(attack, victim)]))
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as results:
        numbers = list(results.read())
    os.waitpid(attacker, 0)
    for _ in range(20):  # a signal takes a moment
        after = state_of(victim)
        if after != before:
            break
        time.sleep(0.01)
    harm = [f"{what}: {before[what]} is now {after[what]}" for what in before if before[what] != after[what]]
    os.kill(victim, signal.SIGKILL)
    os.waitpid(victim, 0)
    return dict(zip(names, [*numbers, *[-1] * (len(names) - len(numbers))], strict=True)), harm


def _answer(attack: Any, victim: int) -> int:
    try:
        if callable(attack):
            attack(victim)
        else:
            number, *arguments = attack
            values = [a(victim) if callable(a) else victim if a is VICTIM else a for a in arguments]
            call(number, *values)
    except OSError as e:
        return e.errno or errno.EIO
    return 0


def state_of(pid: int) -> dict[str, Any]:
    """What attacks may change about a process that leads its process group."""
    state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    if state == "Z":
        return dict.fromkeys(("state", "nice", "processors", "policy", "files", "group"), "dead")
    return {
        "state": "stopped" if state in "tT" else "alive",
        "nice": os.getpriority(os.PRIO_PROCESS, pid),
        "processors": sorted(os.sched_getaffinity(pid)),
        "policy": os.sched_getscheduler(pid),
        "files": list(resource.prlimit(pid, resource.RLIMIT_NOFILE)),
        "group": os.getpgid(pid) == pid,
    }
