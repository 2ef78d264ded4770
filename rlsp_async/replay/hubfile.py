"""RUN/hub.json: where the hub listens. Written whole or not at all, so that no worker reads half an address."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from rlsp_async.errors import unwritable


class HubAddress(msgspec.Struct, frozen=True, kw_only=True):
    """Example: {"address": "tcp://127.0.0.1:40123", "pid": 4711, "incarnation": 2}."""

    address: str
    pid: int
    incarnation: int


def write_hub_file(path: Path, address: str, incarnation: int) -> None:
    """Replaces the file in one step. Raises MachineError when the disk refuses."""
    temporary = path.with_suffix(".tmp")
    try:
        temporary.write_bytes(
            msgspec.json.encode(HubAddress(address=address, pid=os.getpid(), incarnation=incarnation))
        )
        os.replace(temporary, path)
    except OSError as e:
        raise unwritable(path, e) from None


def former_address(path: Path) -> str | None:
    """The address of an earlier start of this run's hub; None when there was none or its file is unreadable."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=HubAddress).address
    except (FileNotFoundError, msgspec.DecodeError):
        return None
