"""hub.json: written whole by the hub, read by workers and by the next start of the hub."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rlsp_async.errors import MachineError
from rlsp_async.wire.address import HubFile, former_address, read_hub_file, write_hub_file


def test_what_the_hub_writes_is_read(tmp_path: Path) -> None:
    path = tmp_path / "hub.json"
    assert read_hub_file(path) is None
    assert former_address(path) is None
    write_hub_file(path, "tcp://127.0.0.1:5700", incarnation=2)
    assert read_hub_file(path) == HubFile(address="tcp://127.0.0.1:5700", pid=os.getpid(), incarnation=2)
    assert former_address(path) == "tcp://127.0.0.1:5700"
    assert [entry.name for entry in tmp_path.iterdir()] == ["hub.json"]


def test_a_damaged_file_stops_a_worker_and_is_replaced_by_a_hub(tmp_path: Path) -> None:
    path = tmp_path / "hub.json"
    path.write_text('{"addr')
    with pytest.raises(MachineError, match="delete it and start the hub again"):
        read_hub_file(path)
    assert former_address(path) is None


def test_a_directory_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"hub\.json: cannot be written"):
        write_hub_file(tmp_path / "missing" / "hub.json", "tcp://127.0.0.1:1", incarnation=1)
