"""What the kernel refuses a checker."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import sys

import pytest

from rlsp_async.verifying import sandbox


@pytest.mark.skipif(sys.platform != "linux" or platform.machine() != "x86_64", reason="seccomp filter is for x86-64")
def test_everything_holds_here() -> None:
    assert sandbox.probe_restrictions() == {
        "no network": True,
        "no writing": True,
        "no processes": True,
        "no signals": True,
    }


@pytest.mark.skipif(sys.platform != "linux" or platform.machine() != "x86_64", reason="seccomp filter is for x86-64")
def test_sockets_may_be_left_and_nothing_else() -> None:
    assert sandbox.probe_restrictions(network=True) == {
        "no network": False,
        "no writing": True,
        "no processes": True,
        "no signals": True,
    }


@pytest.mark.skipif(sys.platform != "linux" or platform.machine() != "x86_64", reason="seccomp filter is for x86-64")
def test_files_may_be_closed_too() -> None:
    assert sandbox.probe_restrictions(files=False) == {
        "no network": True,
        "no writing": True,
        "no reading": True,
        "no processes": True,
        "no signals": True,
    }


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


def test_what_does_not_hold_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "apply_seccomp", lambda libc, denied: None)
    monkeypatch.setattr(sandbox, "apply_landlock", lambda libc: None)
    held = sandbox.probe_restrictions()
    assert (held["no network"], held["no signals"]) == (False, False)


def test_landlock_alone_keeps_files_unwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    if not _has_landlock():
        pytest.skip("this kernel has no Landlock")
    monkeypatch.setattr(sandbox, "apply_seccomp", lambda libc, denied: None)
    assert sandbox.probe_restrictions()["no writing"]


def _has_landlock() -> bool:
    return bool(ctypes.CDLL(None).syscall(444, None, 0, 1) > 0)  # asks for the version
