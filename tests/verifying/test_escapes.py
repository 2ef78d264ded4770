"""No way out of a confined process: every system call of `escapes`, as root and as another user."""

from __future__ import annotations

import errno
import os
import platform
import sys
from typing import Any

import pytest

from tests.verifying import escapes

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="the calls are those of x86-64"
)
USERS = [os.getuid(), *([escapes.NOBODY] if os.getuid() == 0 else [])]
REFUSED = {errno.EPERM, errno.EACCES}


@pytest.mark.parametrize("uid", USERS)
@pytest.mark.parametrize("options", [{"files": False}, {}, {"network": True}], ids=["code", "checker", "network"])
def test_every_way_out_is_refused_and_nobody_is_harmed(uid: int, options: dict[str, Any]) -> None:
    attacks = {**escapes.ATTACKS, **({} if options.get("files", True) else escapes.READS)}
    if "network" in options:
        attacks.pop("O_NONBLOCK on what is shared")  # a client has to be able to set it on its sockets
    answers, harm = escapes.attempt(attacks, uid, **options)
    assert {name: answer for name, answer in answers.items() if answer not in REFUSED} == {}
    assert harm == []


def test_the_attacks_do_harm_where_nothing_is_confined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(escapes, "confine", lambda memory_mb: None)
    for name, what in [
        ("rt_tgsigqueueinfo", "state"),
        ("rt_tgsigqueueinfo, stop", "state"),
        ("F_SETOWN and F_SETSIG", "state"),
        ("F_SETOWN_EX", "state"),
        ("F_SETOWN of its group", "state"),
        ("pidfd_send_signal", "state"),
        ("setpriority", "nice"),
        ("setpriority of a group", "nice"),
        ("sched_setscheduler", "policy"),
        ("sched_setattr", "policy"),
        ("prlimit of another", "files"),
    ]:
        answers, harm = escapes.attempt({name: escapes.ATTACKS[name]}, os.getuid())
        assert answers == {name: 0}
        assert harm and harm[0].startswith(what), (name, harm)


def test_calls_of_32_bits_kill_the_process() -> None:
    import ctypes
    import mmap
    import signal

    code = b"\xb8\x14\x00\x00\x00\xcd\x80\xc3"  # mov eax, 20 (getpid); int 0x80; ret
    pid = os.fork()
    if pid == 0:
        page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        page.write(code)
        function = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
        escapes.confine(512, files=False)
        function()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGSYS
