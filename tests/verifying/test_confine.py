"""What the kernel refuses a checker."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import sys

import pytest

from rlsp_async.verifying import confine


@pytest.mark.skipif(sys.platform != "linux" or platform.machine() != "x86_64", reason="seccomp filter is for x86-64")
def test_everything_holds_here() -> None:
    assert confine.holds(confine.Limits(memory_mb=2048)) == {"no network": True, "no writing": True, "no processes": True, "no signals": True}


def test_what_does_not_hold_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confine, "_seccomp", lambda *_: None)
    monkeypatch.setattr(confine, "_landlock", lambda *_: None)
    held = confine.holds(confine.Limits(memory_mb=2048))
    assert (held["no network"], held["no signals"]) == (False, False)


def test_landlock_alone_keeps_files_unwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    if not _has_landlock():
        pytest.skip("this kernel has no Landlock")
    monkeypatch.setattr(confine, "_seccomp", lambda *_: None)
    assert confine.holds(confine.Limits(memory_mb=2048))["no writing"]


def _has_landlock() -> bool:
    return bool(ctypes.CDLL(None).syscall(444, None, 0, 1) > 0)  # asks for the version


@pytest.mark.skipif(sys.platform != "linux" or platform.machine() != "x86_64", reason="seccomp filter is for x86-64")
def test_a_judge_may_connect_and_nothing_else() -> None:
    held = confine.holds(confine.Limits(memory_mb=2048, network=True))
    assert held == {"no network": False, "no writing": True, "no processes": True, "no signals": True}


def test_cpu_seconds_are_bounded() -> None:
    pid = os.fork()
    if pid == 0:
        confine.confine(confine.Limits(memory_mb=2048, cpu_s=1))
        while True:
            sum(range(1000))
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
