"""What the kernel refuses a checker: what the probe finds, the layers one by one, and namespaces."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from rlsp_async.verifying import sandbox, seccomp
from rlsp_async.verifying.attempts import ATTEMPTS
from rlsp_async.verifying.base import load_verifier
from tests.verifying.code import attacks
from tests.verifying.escapes import NOBODY

has_filter = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="the filter has been tried on x86-64 only"
)
RESTRICTIONS = {
    "no network",
    "no writing",
    "no processes",
    "no signals",
    "no scheduling",
    "no inspection",
    "no local sockets",
    "no IPC",
    "no administration",
    "no attributes",
    "no capabilities",
}


@has_filter
def test_everything_holds_here() -> None:
    assert sandbox.probe_restrictions() == dict.fromkeys(RESTRICTIONS, True)


@has_filter
def test_connections_may_be_left_and_nothing_else() -> None:
    assert sandbox.probe_restrictions(network=True) == {**dict.fromkeys(RESTRICTIONS, True), "no network": False}


@has_filter
def test_files_may_be_closed_too() -> None:
    assert sandbox.probe_restrictions(files=False) == dict.fromkeys(RESTRICTIONS | {"no reading"}, True)


def test_the_probe_takes_milliseconds_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = len(os.listdir("/proc/self/fd")), {child.pid for child in psutil.Process().children()}
    start = time.process_time()
    assert len(sandbox.probe_attempts(files=False)) == len(ATTEMPTS) + 1 > 100
    assert time.process_time() - start < 0.5
    assert before == (len(os.listdir("/proc/self/fd")), {child.pid for child in psutil.Process().children()})
    assert not list(tmp_path.iterdir())


def test_cpu_time_is_limited() -> None:
    pid = os.fork()
    if pid == 0:
        try:
            sandbox.confine(512, cpu_s=1)
            while True:
                pass
        finally:
            os._exit(1)
    _, status, usage = os.wait4(pid, 0)
    assert status == signal.SIGKILL
    assert 0.5 < usage.ru_utime + usage.ru_stime < 2.0


# --- layers ----------------------------------------------------------------------------------------------------------


def without_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "apply_seccomp", lambda libc, program: None)


def without_landlock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "apply_landlock", lambda libc, network, files: None)


def test_what_does_not_hold_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    without_filter(monkeypatch)
    without_landlock(monkeypatch)
    held = sandbox.probe_restrictions()
    assert (held["no network"], held["no signals"], held["no scheduling"]) == (False, False, False)


@has_filter
def test_one_route_that_is_open_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    build = sandbox.build_filter
    monkeypatch.setitem(seccomp.NUMBERS, "getpgid", (121, 155))
    monkeypatch.setattr(seccomp, "_ALWAYS", {**seccomp._ALWAYS, "getpgid": ()})
    build.cache_clear()
    try:
        found = [route for route, refused in sandbox.probe_attempts().items() if not refused]
    finally:
        build.cache_clear()
    assert found == [("no inspection", "getpgid")]


@has_filter
def test_the_filter_alone_holds_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    without_landlock(monkeypatch)
    monkeypatch.setattr(sandbox, "drop_privileges", lambda libc, own_uid: None)
    held = sandbox.probe_restrictions(files=False)
    assert held == {**dict.fromkeys(RESTRICTIONS | {"no reading"}, True), "no capabilities": os.getuid() != 0}


def test_landlock_alone_keeps_files_unwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    if landlock_version() < 1:
        pytest.skip("this kernel has no Landlock")
    without_filter(monkeypatch)
    assert sandbox.probe_restrictions()["no writing"]


def test_landlock_alone_keeps_signals_and_memory_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    if landlock_version() < 6:
        pytest.skip("this kernel's Landlock has no scopes")
    without_filter(monkeypatch)
    monkeypatch.setattr(sandbox, "drop_privileges", lambda libc, own_uid: None)
    found = sandbox.probe_attempts()
    routes = ("kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "pidfd_send_signal")
    assert all(found["no signals", route] for route in routes)
    assert found["no inspection", "ptrace"]
    assert found["no inspection", "/proc/PID/mem"]


def landlock_version() -> int:
    return int(ctypes.CDLL(None).syscall(444, None, 0, 1))


@pytest.mark.skipif(os.getuid() != 0, reason="only root can take another user id")
def test_a_process_of_root_that_opens_no_file_is_nobody_and_has_no_capability() -> None:
    def look() -> bytes:
        sandbox.confine(512, files=False)
        return f"{os.getuid()} {os.geteuid()} {os.getgid()}".encode()

    first, second = in_child(look), in_child(look)
    ids = {*first.split(), *second.split()}
    assert len(ids) == 2, "two processes, two ids, each both user and group"
    assert all(int(one) >= 0x70000000 for one in ids)


def test_capabilities_are_gone_for_good() -> None:
    def look() -> bytes:
        sandbox.confine(512)
        with open("/proc/self/status") as status:
            lines = dict(line.split(":\t", 1) for line in status.read().splitlines())
        return " ".join(lines[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Amb")).encode()

    assert {int(one, 16) for one in in_child(look).split()} == {0}


# --- namespaces ------------------------------------------------------------------------------------------------------


def in_child(work: Callable[[], bytes]) -> bytes:
    """What `work` returns in a child, or in the process that the child becomes."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writer, work())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        data = pipe.read()
    os.waitpid(pid, 0)
    return data


def has_namespaces() -> bool:
    return in_child(lambda: b"%d" % sandbox.enter_namespaces()) == b"1"


def test_process_ids_are_those_of_the_namespace_and_all_end_together() -> None:
    if not has_namespaces():
        pytest.skip("no PID namespace is granted here")

    def work() -> bytes:
        assert sandbox.enter_namespaces()
        outside = os.readlink("/proc/self")
        pid = os.fork()
        if pid == 0:
            time.sleep(60)
        return f"{os.getpid()} {pid} {outside}".encode()

    start = time.monotonic()
    own, child, outside = in_child(work).split()
    assert (own, child) == (b"1", b"2")
    assert time.monotonic() - start < 30, "the sleeping child has ended with process 1"
    assert int(outside) > 2


def test_no_process_outside_can_be_named() -> None:
    if not has_namespaces():
        pytest.skip("no PID namespace is granted here")
    outer = os.getpid()

    def work() -> bytes:
        assert sandbox.enter_namespaces()
        try:
            os.kill(outer, 0)
        except ProcessLookupError:
            return b"none"
        return b"found"

    assert in_child(work) == b"none"


@pytest.mark.parametrize("uid", [os.getuid(), *([NOBODY] if os.getuid() == 0 else [])])
@pytest.mark.parametrize("are_granted", [True, False])
def test_code_is_judged_by_every_user_with_and_without_namespaces(
    uid: int, are_granted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not are_granted:
        monkeypatch.setattr(sandbox, "_NAMESPACES", (0x7FFFFFFF,))
    code = load_verifier("code")
    victim = subprocess.Popen(["sleep", "60"], start_new_session=True, user=uid if os.getuid() == 0 else None)
    attack = attacks.ON_VICTIM["fcntl"].replace("VICTIM", str(victim.pid))

    def judge(response: str, test: str) -> bytes:
        if uid != os.getuid():
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # as after the start of a program: its /proc/self is its own
        is_apart = sandbox.enter_namespaces()
        code.prepare(512)
        sandbox.confine(512, files=False, cpu_s=5)
        verdict = code.judge("", response, test)
        return f"{verdict.status} {is_apart}".encode()

    try:
        right = in_child(lambda: judge(attacks.POSITIVE, attacks.LOOPS["all"]))
        wrong = in_child(lambda: judge(attack, attacks.TEST))
        assert (right.split()[0], wrong.split()[0]) == (b"correct", b"wrong")
        assert right.split()[1] == (b"True" if are_granted and has_namespaces() else b"False")
        assert victim.poll() is None
    finally:
        victim.kill()
        victim.wait()


def test_where_namespaces_are_refused_everything_else_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_NAMESPACES", (0x7FFFFFFF,))  # EINVAL
    pid = os.getpid()
    assert not sandbox.enter_namespaces()
    assert os.getpid() == pid
    assert sandbox.probe_restrictions(files=False)["no capabilities"]


def test_a_child_apart_leaves_its_parent_where_it_is() -> None:
    pids = []
    for _ in range(2):
        with sandbox.separate_child():
            pid = os.fork()
            if pid == 0:
                os._exit(os.getpid() & 0x7F)
        pids.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    if has_namespaces() and os.getuid() == 0:
        assert pids == [1, 1]
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    assert os.waitpid(pid, 0) == (pid, 0)


def test_a_tracer_that_came_with_the_fork_is_left_behind() -> None:
    """Coverage and debuggers trace this process; in the confined one their calls would be refused and blamed on code."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            sys.settrace(lambda *_: None)
            sys.setprofile(lambda *_: None)
            sandbox.confine(1 << 20)
            code = 0 if (sys.gettrace(), sys.getprofile()) == (None, None) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
