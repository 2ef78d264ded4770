"""Weights arrive whole or not at all, and are known to be right."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from rlsp_async.errors import MachineError, WeightsError
from rlsp_async.messages import WeightsRef
from rlsp_async.weights.file import FileTransport
from rlsp_async.weights.probe import Errors, errors, make_probe, tolerance
from rlsp_async.weights.snapshot import Snapshot
from rlsp_async.weights.transport import transport_for

PROBE = make_probe([3, 1, 4], [-0.5, -1.5])


def publish(
    tensors: Iterable[tuple[str, torch.Tensor]], directory: Path, version: int, incarnation: int = 0
) -> WeightsRef:
    transport = FileTransport(directory)
    return transport.publish(transport.take(tensors, version, incarnation), PROBE)


def fetch(ref: WeightsRef) -> Path:
    return transport_for(ref).fetch(ref)


def prune(directory: Path, keep: int, incarnation: int | None = None) -> list[int]:
    return FileTransport(directory).prune(keep, incarnation)


def publish_two(directory: Path, version: int) -> WeightsRef:
    tensors = {"a": torch.full((2, 3), float(version)), "b": torch.arange(6.0).reshape(2, 3).t()}
    return publish(tensors.items(), directory, version, incarnation=4)


def test_what_is_published_is_fetched(tmp_path: Path) -> None:
    ref = publish_two(tmp_path / "new dir", 12)
    assert (ref.version, ref.incarnation, ref.probe) == (12, 4, PROBE)
    assert ref.uri.startswith("file:///")
    path = fetch(ref)
    assert (path.name, path.stat().st_size) == ("v000012-4.safetensors", ref.num_bytes)
    tensors = load_file(path)
    assert tensors["a"].tolist() == [[12.0] * 3] * 2
    assert tensors["b"].tolist() == [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]


def test_equal_tensors_have_equal_digests(tmp_path: Path) -> None:
    assert publish_two(tmp_path / "x", 3).digest == publish_two(tmp_path / "y", 3).digest
    assert publish_two(tmp_path / "x", 3).digest != publish_two(tmp_path / "x", 4).digest


@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_damaged_weights_are_refused(tmp_path: Path, damage: str) -> None:
    ref = publish_two(tmp_path, 12)
    path = tmp_path / "v000012-4.safetensors"
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(content[:-1] if damage == "cut" else content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(WeightsError, match="version 12") as caught:
        fetch(ref)
    assert damage == "gone" or ref.digest in str(caught.value)


def test_an_unknown_scheme_is_refused() -> None:
    ref = WeightsRef(version=1, uri="nccl://there", digest="", num_bytes=0, probe=PROBE)
    with pytest.raises(WeightsError, match="nccl"):
        fetch(ref)


def test_a_full_disk_leaves_the_old_version_and_no_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ref = publish_two(tmp_path, 12)

    def fails(self: Snapshot) -> Iterator[memoryview]:
        yield memoryview(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Snapshot, "chunks", fails)
    with pytest.raises(MachineError, match="No space left"):
        publish([("a", torch.zeros(1))], tmp_path, 12)
    assert [path.name for path in tmp_path.iterdir()] == ["v000012-4.safetensors"]
    assert fetch(ref).exists()


def test_a_replaced_version_stays_readable_for_who_has_it_open(tmp_path: Path) -> None:
    publish_two(tmp_path, 1)
    with (tmp_path / "v000001-4.safetensors").open("rb") as reader:
        before = reader.read(10)
        publish([("a", torch.zeros(99))], tmp_path, 1, incarnation=4)
        reader.seek(0)
        assert reader.read(10) == before


def test_prune_keeps_the_newest_and_removes_what_a_killed_writer_left(tmp_path: Path) -> None:
    for version in (2, 9, 10, 1000):
        publish_two(tmp_path, version)
    (tmp_path / ".v000011-3.tmp").write_bytes(b"half")
    (tmp_path / "note.txt").write_text("the user's")
    assert prune(tmp_path, 2) == [2, 9]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "note.txt",
        "v000010-4.safetensors",
        "v001000-4.safetensors",
    ]
    assert prune(tmp_path / "missing", 2) == []


def test_a_late_writer_replaces_nothing_of_a_newer_one(tmp_path: Path) -> None:
    newer = publish([("a", torch.ones(3))], tmp_path, 1, incarnation=9)
    older = publish([("a", torch.zeros(3))], tmp_path, 1, incarnation=8)
    assert older.uri != newer.uri
    assert fetch(newer).name == "v000001-9.safetensors"


def test_a_late_pruner_removes_nothing_of_a_newer_one(tmp_path: Path) -> None:
    for version, incarnation in ((1, 8), (2, 9), (3, 9), (4, 9)):
        publish([("a", torch.ones(3))], tmp_path, version, incarnation)
    (tmp_path / ".v000005-9.tmp").write_bytes(b"being written")
    assert prune(tmp_path, 1, incarnation=8) == [1]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".v000005-9.tmp",
        "v000002-9.safetensors",
        "v000003-9.safetensors",
        "v000004-9.safetensors",
    ]


def test_of_a_version_made_many_times_two_stay(tmp_path: Path) -> None:
    for incarnation in (5, 6, 7):
        publish([("a", torch.ones(3))], tmp_path, 1, incarnation)
    prune(tmp_path, 3, incarnation=7)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["v000001-6.safetensors", "v000001-7.safetensors"]


def test_probe_errors() -> None:
    assert errors(PROBE, [-0.5, -1.5]) == (0.0, 0.0)
    assert errors(PROBE, np.array([-0.5, -1.25])) == (0.25, 0.125)
    assert errors(PROBE, [-0.5]) == (float("inf"), float("inf"))
    assert errors(PROBE, [-0.5, float("nan")]) == (float("inf"), float("inf"))


@pytest.mark.parametrize(
    ("setting", "dtype", "on_gpu", "own", "largest", "mean"),
    [
        (0.0, "float32", False, Errors(0.4, 0.2), 1e-3, float("inf")),
        (0.0, "float32", True, None, 2e-2, float("inf")),
        (0.0, "float32", True, Errors(0.004, 0.001), 0.012, 0.003),
        (0.0, "bfloat16", True, None, 0.5, float("inf")),
        (0.0, "bfloat16", False, Errors(0.125, 0.0625), 0.375, 0.1875),
        (0.0, "bfloat16", False, Errors(0.0, 0.0), 0.1, 0.03),
        (0.2, "bfloat16", True, Errors(0.125, 0.0625), 0.2, float("inf")),
        (0.2, "float32", False, None, 0.2, float("inf")),
    ],
)
def test_tolerances(setting: float, dtype: str, on_gpu: bool, own: Errors | None, largest: float, mean: float) -> None:
    bound = tolerance(setting, dtype, on_gpu, own)
    assert bound == (largest, mean)
    assert Errors(largest, min(mean, largest)).is_within(bound)
    assert not Errors(largest * 1.01, 0.0).is_within(bound)
    assert mean == float("inf") or not Errors(largest, mean * 1.01).is_within(bound)


def test_what_is_too_large_is_said() -> None:
    bound = Errors(0.5, 0.1)
    assert Errors(0.75, 0.2).words(bound) == "0.75, tolerance 0.5"
    assert Errors(0.25, 0.2).words(bound) == "0.2 in the mean, tolerance 0.1"


@pytest.mark.parametrize(("ids", "logprobs"), [([1], []), ([1, 2], [-1.0, -1.0]), ([1, 2], [float("nan")])])
def test_an_impossible_probe_is_not_made(ids: list[int], logprobs: list[float]) -> None:
    with pytest.raises(ValueError, match="probe"):
        make_probe(ids, logprobs)
