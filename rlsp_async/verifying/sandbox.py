"""What a checker process is forbidden to do: reach another process, use the network, start a process, write a file.

    enter_namespaces()           # once, before checkers are forked: process ids and a network of their own
    confine(memory_mb=2048)      # in each checker, for the rest of its life; no privilege is needed
    probe_restrictions()         # {"no network": True, "no writing": True, ...}: each tried out in a confined child

The kernel enforces it in independent layers, so that a kernel without one of them still enforces the others:

limits        memory, files, processes, CPU time, core dumps (setrlimit)
seccomp       an allow-list of system calls and their arguments (`seccomp`); x86-64, and aarch64 by the same table
Landlock      no change of a file system (Linux 5.13), no TCP (6.7), no signal and no abstract socket outside (6.12)
identity      no capability; a process that opens no file and was started as root gets a user id of its own
namespaces    process ids, System V IPC and network of its own, where root or user namespaces permit it

The channel to the pool is open before and stays usable.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import platform
import resource
import select
import shutil
import signal
import struct
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import lru_cache

from rlsp_async.processes import kill_with_parent
from rlsp_async.verifying.attempts import ATTEMPTS, IGNORED_WITH_FILES, Victim
from rlsp_async.verifying.seccomp import build_filter

_PR_SET_SECCOMP, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 22, 24, 38, 47, 4
_CAPABILITY_VERSION_3 = 0x20080522
_CAP_KILL, _CAP_SETGID, _CAP_SETUID, _CAP_SYS_ADMIN = 5, 6, 7, 21
_FIRST_OWN_UID = 0x70000000
"""User ids from here on belong to nobody; a runner started as root takes one of 2**24 by chance."""
_NOBODY = 65534

PROBE_S = 10.0
"""Bound on the attempts of `probe_restrictions`; they take milliseconds. What was not tried by then does not hold."""
_NEWIPC, _NEWUSER, _NEWPID, _NEWNET = 0x08000000, 0x10000000, 0x20000000, 0x40000000
_NAMESPACES = (_NEWPID | _NEWIPC | _NEWNET, _NEWPID | _NEWIPC, _NEWPID)
"""Tried in this order; the first that the kernel grants is used."""

_LANDLOCK_CREATE, _LANDLOCK_RESTRICT = 444, 446
_LANDLOCK_VERSION, _LANDLOCK_NO_LOG = 1, 1
_LANDLOCK_EXECUTE, _LANDLOCK_READS = 0b1, 0b1100
"""EXECUTE; READ_FILE and READ_DIR."""
_LANDLOCK_WRITES = {1: 0b1_1111_1111_0010, 2: 1 << 13, 3: 1 << 14, 5: 1 << 15}
"""The rights that change something, by the version that brought them: WRITE_FILE, REMOVE_*, MAKE_*; REFER; TRUNCATE;
IOCTL_DEV."""
_LANDLOCK_BIND_TCP, _LANDLOCK_CONNECT_TCP = 1, 2
_LANDLOCK_SCOPE_ABSTRACT_SOCKET, _LANDLOCK_SCOPE_SIGNAL = 1, 2


def confine(memory_mb: int, *, network: bool = False, files: bool = True, cpu_s: int = 0) -> None:
    """Confines this process for the rest of its life, as far as this kernel can. Ends it if its parent has died.

    Args:
        memory_mb: limit of the address space, MiB.
        network: whether connections may be opened.
        files: whether files may be opened for reading.
        cpu_s: CPU seconds after which the process is killed; 0: no limit.
    """
    # A tracer or profiler that came with the fork (coverage, a debugger) would make calls that are refused below, and
    # its errors would count as the answer's.
    sys.settrace(None)
    sys.setprofile(None)
    os.environ.clear()
    for limit in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE):
        resource.setrlimit(limit, (0, 0))
    if cpu_s:
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))
    if sys.platform != "linux":
        return
    libc = _load_libc()
    drop_privileges(libc, own_uid=not files)
    die_with_parent()  # after the change of the user, which would undo it
    resource.setrlimit(resource.RLIMIT_AS, (memory_mb << 20, memory_mb << 20))
    for limit in (resource.RLIMIT_NPROC, resource.RLIMIT_MEMLOCK, resource.RLIMIT_MSGQUEUE, resource.RLIMIT_RTPRIO):
        resource.setrlimit(limit, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    apply_landlock(libc, network=network, files=files)
    apply_seccomp(libc, build_filter(platform.machine(), network=network, files=files))


def die_with_parent() -> None:
    """Has the kernel kill this process when its parent dies; ends it at once if the parent has died (Linux only)."""
    if not kill_with_parent(os.getppid()):
        os._exit(0)


# --- namespaces ------------------------------------------------------------------------------------------------------


def enter_namespaces() -> bool:
    """Goes on in a child that is process 1 of a PID namespace of its own, if the kernel grants one.

    The child also has System V IPC and a network of its own where these are granted. What it forks can name no process
    outside, and ends with it. The parent does nothing but wait, ends as the child ends, and takes the child along when
    it is killed. Root needs CAP_SYS_ADMIN; other users need user namespaces, in which files look as before.

    Returns:
        Whether the namespace was granted; if not, nothing has changed. Call it in a process without threads.
    """
    if sys.platform != "linux" or not _unshare_first():
        return False
    alive, end = os.pipe()
    pid = os.fork()
    if pid:
        os.closerange(3, end)
        os.closerange(end + 1, 1 << 16)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        os._exit(code if code >= 0 else 1)
    os.close(end)
    die_with_parent()
    if select.select([alive], [], [], 0)[0]:  # the parent died before the kernel was told
        os._exit(0)
    os.close(alive)
    return True


@contextlib.contextmanager
def separate_child() -> Iterator[None]:
    """The child that is forked in this context gets a PID namespace of its own, if this process has the privilege."""
    try:
        mine = os.open("/proc/self/ns/pid", os.O_RDONLY)
    except OSError:
        yield
        return
    libc = _load_libc()
    is_granted = libc.unshare(_NEWPID) == 0
    try:
        yield
    finally:
        if is_granted:
            libc.setns(mine, _NEWPID)  # the namespace of children; this process never leaves its own
        os.close(mine)


def _unshare_first() -> bool:
    """Unshares the largest granted set of namespaces, as this user or else with a user namespace around it."""
    libc = _load_libc()
    if any(libc.unshare(wanted) == 0 for wanted in _NAMESPACES):
        return True
    return any(_is_granted(wanted) and _unshare_as_user(wanted) for wanted in _NAMESPACES)


def _is_granted(namespaces: int) -> bool:
    """Tries a user namespace in a child, because a process that fails halfway has lost its user id."""
    pid = os.fork()
    if pid == 0:
        os._exit(0 if _unshare_as_user(namespaces) else 1)
    return os.waitpid(pid, 0)[1] == 0


def _unshare_as_user(namespaces: int) -> bool:
    """Unshares with a user namespace in which this user and group have the ids that they have outside."""
    uid, gid = os.geteuid(), os.getegid()
    if _load_libc().unshare(_NEWUSER | namespaces) != 0:
        return False
    try:
        for name, line in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(line)
    except OSError:
        return False
    return True


# --- layers ----------------------------------------------------------------------------------------------------------


def drop_privileges(libc: ctypes.CDLL, *, own_uid: bool) -> None:
    """Gives up every capability for good and, on request, the user id.

    A process of root takes a user and group id that no other process has, if the process that has to kill it may do so
    (CAP_KILL), or those of "nobody" where such ids do not exist. Other users have no second id to take.
    """
    capabilities = _effective_capabilities(libc)
    capability = 0
    while libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) == 0:  # EINVAL after the last; EPERM without privilege
        capability += 1
    libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    needed = 1 << _CAP_KILL | 1 << _CAP_SETGID | 1 << _CAP_SETUID
    if own_uid and os.geteuid() == 0 and capabilities & needed == needed:
        for uid in (_FIRST_OWN_UID + int.from_bytes(os.urandom(3)), _NOBODY):
            with contextlib.suppress(OSError):
                os.setgroups([])
                os.setresgid(uid, uid, uid)
                os.setresuid(uid, uid, uid)
                break
    header = struct.pack("<Ii", _CAPABILITY_VERSION_3, 0)
    libc.capset(header, bytes(24))


def _effective_capabilities(libc: ctypes.CDLL) -> int:
    header, data = struct.pack("<Ii", _CAPABILITY_VERSION_3, 0), ctypes.create_string_buffer(24)
    if libc.capget(header, data) != 0:
        return 0
    lower, _, _, upper, _, _ = struct.unpack("<6I", data.raw)
    return int(upper) << 32 | int(lower)


def apply_landlock(libc: ctypes.CDLL, *, network: bool, files: bool) -> None:
    """Installs a Landlock ruleset without a rule: whatever it handles is refused."""
    version = _landlock_version(libc)
    if version < 1:
        return
    rights = _LANDLOCK_EXECUTE | (0 if files else _LANDLOCK_READS)
    for since, added in _LANDLOCK_WRITES.items():
        rights |= added if version >= since else 0
    tcp = _LANDLOCK_BIND_TCP | (0 if network else _LANDLOCK_CONNECT_TCP)
    attributes = struct.pack("<QQQ", rights, tcp, _LANDLOCK_SCOPE_ABSTRACT_SOCKET | _LANDLOCK_SCOPE_SIGNAL)
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = libc.syscall(_LANDLOCK_CREATE, attributes, size, 0)
    if ruleset >= 0:
        libc.syscall(_LANDLOCK_RESTRICT, ruleset, _LANDLOCK_NO_LOG if version >= 7 else 0)
        os.close(ruleset)


def apply_seccomp(libc: ctypes.CDLL, program: bytes | None) -> None:
    """Installs a filter that `seccomp.build_filter` has made."""
    if program is not None:
        header = struct.pack("@HP", len(program) // 8, _address_of(program))
        libc.prctl(_PR_SET_SECCOMP, 2, header, 0, 0)


@lru_cache(maxsize=1)
def _load_libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


@lru_cache(maxsize=1)
def _landlock_version(libc: ctypes.CDLL) -> int:
    """The version that the kernel has; 0 or less: none."""
    return int(libc.syscall(_LANDLOCK_CREATE, None, 0, _LANDLOCK_VERSION))


def _address_of(data: bytes) -> int:
    address = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value
    assert address is not None
    return address


# --- probes ----------------------------------------------------------------------------------------------------------


def probe_restrictions(*, network: bool = False, files: bool = True) -> dict[str, bool]:
    """Tries in a confined child what the sandbox should forbid. Call it in a process without threads: it forks.

    Args:
        network: as for `confine`.
        files: as for `confine`; when True, "no reading" is not tried.

    Returns:
        For each restriction ("no network", "no writing", ...) whether the kernel refuses every attempt of `attempts`.
    """
    held: dict[str, bool] = {}
    for (what, _), refused in probe_attempts(network=network, files=files).items():
        held[what] = held.get(what, True) and refused
    return held


def probe_attempts(*, network: bool = False, files: bool = True) -> dict[tuple[str, str], bool]:
    """Tries every attempt in a confined child, against a process that exists for it.

    Args:
        network: as for `confine`.
        files: as for `confine`.

    Returns:
        For each restriction and route, e.g. ("no signals", "fcntl F_SETOWN"), whether the kernel refuses.
    """
    attempts = [attempt for attempt in ATTEMPTS if not (files and attempt.what == IGNORED_WITH_FILES)]
    build_filter(platform.machine(), network=network, files=files)  # made here, so that the checkers share it
    folder = _make_folder()
    path = os.path.join(folder, "file") if folder else ""
    victim_pid, proc_name, end_victim = _fork_victim()
    results, answer = os.pipe()
    status, ask = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(ask)
            confine(1 << 20, network=network, files=files)
            os.write(answer, b"c")
            os.read(status, 1)  # ends when the parent has looked at the capabilities
            victim = Victim(victim_pid, proc_name, path)
            for attempt in attempts:  # one byte each, because an attempt may end this process
                os.write(answer, bytes([attempt.is_refused(victim)]))
        finally:
            os._exit(0)
    for descriptor in (answer, status):
        os.close(descriptor)
    with os.fdopen(results, "rb", 0) as pipe:
        is_confined = pipe.read(1) == b"c"
        no_capabilities = is_confined and _has_no_capabilities(pid)
        os.close(ask)
        refused = _read_until(pipe, time.monotonic() + PROBE_S)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(end_victim)
    os.kill(victim_pid, signal.SIGKILL)
    os.waitpid(victim_pid, 0)
    shutil.rmtree(folder, ignore_errors=True)
    found = {(a.what, a.how): i < len(refused) and refused[i] == 1 for i, a in enumerate(attempts)}
    return {**found, ("no capabilities", "capget"): no_capabilities}


def _make_folder() -> str:
    """A folder with a file for attempts to write; an empty string where none can be made."""
    try:
        folder = tempfile.mkdtemp(prefix="rlsp-sandbox-")
        with open(os.path.join(folder, "file"), "w") as file:
            file.write("x")
    except OSError:
        return ""
    return folder


def _read_until(pipe: io.FileIO, deadline: float) -> bytes:
    """Reads to the end, or as much as has come at the deadline (seconds of the monotonic clock)."""
    data = b""
    while select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
        part = pipe.read(4096)
        if not part:
            break
        data += part
    return data


def _fork_victim() -> tuple[int, str, int]:
    """A process that waits: its id, its name in /proc, and the descriptor whose end lets it end."""
    told, tell = os.pipe()
    waits, end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(end)
            os.close(told)
            die_with_parent()
            name = ""
            with contextlib.suppress(OSError):
                name = os.readlink("/proc/self")
            os.write(tell, name.encode() + b"\n")
            os.read(waits, 1)
        finally:
            os._exit(0)
    os.close(tell)
    os.close(waits)
    with os.fdopen(told) as pipe:
        return pid, pipe.readline().strip(), end


def _has_no_capabilities(pid: int) -> bool:
    """Whether a child has no capability, neither effective nor permitted nor inheritable."""
    header, data = struct.pack("<Ii", _CAPABILITY_VERSION_3, pid), ctypes.create_string_buffer(24)
    return _load_libc().capget(header, data) == 0 and not any(data.raw)
