"""RUN/hub.json: where the hub of a run listens. The hub writes the file when its port is open, workers read it."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from rlsp_async.errors import MachineError, unwritable
from rlsp_async.files import replace_file


class HubFile(msgspec.Struct, frozen=True, kw_only=True):
    """Example: {"address": "tcp://127.0.0.1:40123", "pid": 4711, "incarnation": 2}."""

    address: str
    pid: int = 0
    incarnation: int = 0


def write_hub_file(path: Path, address: str, incarnation: int) -> None:
    """Replaces the file in one step, so that no worker reads half an address. Raises MachineError."""
    content = HubFile(address=address, pid=os.getpid(), incarnation=incarnation)
    try:
        replace_file(path, msgspec.json.encode(content), durable=False)
    except OSError as e:
        raise unwritable(path, e) from None


def read_hub_file(path: Path) -> HubFile | None:
    """The file's content; None when there is no file. Raises MachineError when it is damaged."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=HubFile)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as e:
        raise MachineError(f"{path} cannot be read ({e}): delete it and start the hub again") from None


def former_address(path: Path) -> str | None:
    """The address of an earlier start of this run's hub; None when there was none or its file is damaged."""
    try:
        former = read_hub_file(path)
    except MachineError:
        return None
    return former.address if former else None
