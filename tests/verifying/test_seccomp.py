"""The table of system calls against the headers of the system, and the filter as a program."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

from rlsp_async.verifying import attempts, seccomp

HEADERS = ("/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "/usr/include/asm-generic/unistd.h")


@pytest.mark.parametrize("column", [0, 1])
def test_numbers_are_those_of_the_headers(column: int) -> None:
    header = Path(HEADERS[column])
    if not header.exists():
        pytest.skip(f"{header} is not installed")
    found = {name: int(n) for name, n in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)\b", header.read_text())}
    found["newfstatat"] = found.get("newfstatat", found.get("fstatat", -1))
    for name, numbers in (*seccomp.NUMBERS.items(), *attempts.NUMBERS.items()):
        number = numbers[column]
        assert number is None or found[name] == number, name
        assert number is not None or name not in found, name


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("network", [False, True])
@pytest.mark.parametrize("files", [False, True])
def test_every_call_is_decided_by_the_table(machine: str, network: bool, files: bool) -> None:
    program = seccomp.build_filter(machine, network=network, files=files)
    assert program is not None
    allowed = seccomp.allowed_calls(network=network, files=files)
    column = seccomp.ARCHITECTURES[machine][1]
    named = {seccomp.NUMBERS[name][column]: conditions for name, conditions in allowed.items()}
    for number in (*range(600), 0x40000000, 0x40000027, 0xFFFFFFFF):
        expected = seccomp._ALLOW if number in named and not named[number] else seccomp._EPERM
        big = (0xFFFFFFFFFFFFFFFF,) * 6
        assert run(program, machine, number, big) == expected, number
    assert run(program, "x86_64" if machine == "aarch64" else "aarch64", 0, (0,) * 6) == seccomp._KILL


def test_arguments_decide() -> None:
    closed = seccomp.build_filter("x86_64", network=False, files=True)
    network = seccomp.build_filter("x86_64", network=True, files=True)
    assert closed is not None and network is not None
    for program, name, arguments, is_allowed in [
        (closed, "fcntl", (0, 3, 0), True),
        (closed, "fcntl", (0, 8, 1), False),
        (closed, "fcntl", (0, (1 << 32) | 8, 1), False),
        (closed, "fcntl", (0, 4, 0x800), False),
        (network, "fcntl", (0, 4, 0x800), True),
        (network, "fcntl", (0, 4, 0x2800), False),
        (closed, "ioctl", (0, 0x5401), True),
        (closed, "ioctl", (0, 0x5412), False),
        (closed, "openat", (0, 0, 0), True),
        (closed, "openat", (0, 0, 1), False),
        (closed, "openat", (0, 0, 0x2000), False),
        (closed, "open", (0, 0o100), False),
        (closed, "futex", (0, 128), True),
        (closed, "futex", (0, 9 | 128 | 256), True),
        (closed, "futex", (0, 6), False),
        (closed, "futex", (0, 13 | 128), False),
        (closed, "mmap", (0, 4096, 3, 0x22), True),
        (closed, "mmap", (0, 4096, 3, 0x40022), False),
        (closed, "madvise", (0, 4096, 4), True),
        (closed, "madvise", (0, 4096, 12), False),
        (closed, "prlimit64", (0, 7, 0), True),
        (closed, "prlimit64", (0, 7, 1 << 40), False),
        (closed, "prlimit64", (1, 7, 0), False),
        (closed, "clock_gettime", (4,), True),
        (closed, "clock_gettime", (0xFFFFFFFA,), False),
        (closed, "sched_getaffinity", (0,), True),
        (closed, "sched_getaffinity", (1,), False),
        (closed, "sendto", (3, 1, 1, 0, 0), True),
        (closed, "sendto", (3, 1, 1, 0, 1 << 32), False),
        (network, "sendto", (3, 1, 1, 0, 1), True),
        (network, "socket", (2,), True),
        (network, "socket", (1,), False),
        (network, "socket", (16,), False),
        (network, "setsockopt", (3, 1, 26), False),
        (network, "setsockopt", (3, 6, 1), True),
        (network, "setsockopt", (3, 255, 1), False),
    ]:
        padded = (*arguments, 0, 0, 0, 0, 0, 0)[:6]
        answer = run(program, "x86_64", seccomp.NUMBERS[name][0] or 0, padded)
        assert (answer == seccomp._ALLOW) == is_allowed, (name, arguments)


def test_other_machines_have_no_filter() -> None:
    assert seccomp.build_filter("riscv64", network=False, files=False) is None


def run(program: bytes, machine: str, number: int, arguments: tuple[int, ...]) -> int:
    """Runs a filter as the kernel does, on the data of one call."""
    data = struct.pack("<IIQ6Q", number, seccomp.ARCHITECTURES[machine][0], 0, *arguments)
    lines = list(struct.iter_unpack("<HBBI", program))
    at = accumulator = 0
    while True:
        code, if_true, if_false, value = lines[at]
        at += 1
        if code == 0x06:
            return int(value)
        if code == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, value)
        elif code == 0x54:
            accumulator &= value
        else:
            is_true = {
                0x15: accumulator == value,
                0x35: accumulator >= value,
                0x45: bool(accumulator & value),
            }[code]
            at += if_true if is_true else if_false
