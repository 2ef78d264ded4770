"""A snapshot is a safetensors file; in shared memory its sums stand in it, and its pages are used again."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from rlsp_async.errors import MachineError, WeightsError
from rlsp_async.files import SHARED_MEMORY
from rlsp_async.messages import WeightsRef
from rlsp_async.weights import sums
from rlsp_async.weights.file import FileTransport
from rlsp_async.weights.probe import make_probe
from rlsp_async.weights.snapshot import Buffer, Layout, Snapshot, TensorInfo, infos_of, read_plan

PROBE = make_probe([3, 1, 4], [-0.5, -1.5])
MIXED = {
    "z.weight": torch.arange(6.0).reshape(2, 3).t(),
    "a.weight": torch.linspace(-1, 1, 5).to(torch.bfloat16),
    "b.weight": torch.linspace(-1, 1, 7).to(torch.bfloat16),
    "steps": torch.tensor(7),
    "mask": torch.tensor([True, False, True]),
    "empty": torch.zeros(0, 3),
    'odd "name" \u00e9': torch.tensor([1, 2, 3], dtype=torch.uint8),
}


@pytest.fixture
def memory() -> Iterator[Path]:
    """A directory in shared memory."""
    with tempfile.TemporaryDirectory(dir=SHARED_MEMORY, prefix="rlsp-test-") as directory:
        yield Path(directory)


def version(number: int) -> dict[str, torch.Tensor]:
    return {"a": torch.full((50, 20), float(number)), "b": torch.arange(9.0) + number}


def publish(transport: FileTransport, number: int) -> WeightsRef:
    return transport.publish(transport.take(version(number).items(), number, 4), PROBE)


def inode(ref: WeightsRef) -> int:
    return os.stat(ref.uri.removeprefix("file://")).st_ino


def test_a_file_has_the_bytes_that_safetensors_writes(tmp_path: Path) -> None:
    transport = FileTransport(tmp_path)
    ref = transport.publish(transport.take(reversed(MIXED.items()), 3, 4), PROBE)
    save_file({name: t.contiguous() for name, t in MIXED.items()}, tmp_path / "other", metadata={"format": "pt"})
    assert (tmp_path / "v000003-4.safetensors").read_bytes() == (tmp_path / "other").read_bytes()
    assert ref.digest.startswith("sha256:")
    assert transport.fetch(ref).name == "v000003-4.safetensors"


def test_a_file_in_shared_memory_holds_its_sums(memory: Path) -> None:
    transport = FileTransport(memory)
    ref = transport.publish(transport.take(MIXED.items(), 3, 4), PROBE)
    path = transport.fetch(ref)
    assert ref.digest == sums.digest(sums.make_plan(MIXED.items()))
    assert set(read_plan(path)) == set(sums.make_plan(MIXED.items()))
    loaded = load_file(path)
    assert {name: t.tolist() for name, t in loaded.items()} == {name: t.tolist() for name, t in MIXED.items()}
    assert ref.num_bytes == path.stat().st_size


@pytest.mark.parametrize("where", ["value", "header", "cut", "swap"])
def test_other_bytes_in_shared_memory_are_refused_and_tensors_named(memory: Path, where: str) -> None:
    transport = FileTransport(memory)
    ref = publish(transport, 1)
    path = memory / "v000001-4.safetensors"
    content = bytearray(path.read_bytes())
    if where == "value":
        content[-1] ^= 1
    elif where == "header":
        content[content.index(b'"sums":"') + 9] ^= 1
    elif where == "cut":
        del content[-1]
    else:
        content[-8:-4], content[-4:] = content[-4:], content[-8:-4]
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="version 1: ") as caught:
        transport.fetch(ref)
    assert where in ("header", "cut") or "'b'" in str(caught.value)


def test_a_whole_file_of_another_version_is_refused(memory: Path) -> None:
    transport = FileTransport(memory)
    ref, other = publish(transport, 1), publish(transport, 2)
    (memory / "v000001-4.safetensors").write_bytes((memory / "v000002-4.safetensors").read_bytes())
    assert ref.num_bytes == other.num_bytes
    with pytest.raises(WeightsError, match=f"holds other weights: {other.digest}, published were {ref.digest}"):
        transport.fetch(ref)


@pytest.mark.parametrize("content", [b"", b"123", b"\xff" * 8 + b"{}", (9).to_bytes(8, "little") + b'{"a":{}}'])
def test_a_file_that_ends_before_its_header_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(WeightsError, match="it is no safetensors file"):
        read_plan(tmp_path / "file")


@pytest.mark.parametrize(
    "header", [b"[]", b'{"a":{}}', b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}', b'{"a":1}', b"\xff"]
)
def test_a_damaged_header_is_refused_in_a_sentence(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"1234")
    with pytest.raises(WeightsError, match="file"):
        read_plan(path)


def test_the_pages_of_a_removed_version_are_used_again(memory: Path) -> None:
    transport = FileTransport(memory)
    first, second = publish(transport, 1), publish(transport, 2)
    old = inode(first)
    assert transport.prune(1) == [1]
    third = publish(transport, 3)
    assert inode(third) == old != inode(second)
    assert load_file(transport.fetch(third))["b"].tolist() == version(3)["b"].tolist()
    assert load_file(transport.fetch(second))["b"].tolist() == version(2)["b"].tolist()
    transport.prune(1)
    transport.close()
    assert [path.name for path in memory.iterdir()] == ["v000003-4.safetensors"]


@pytest.mark.parametrize("how", ["open", "mapped", "held"])
def test_what_somebody_reads_is_not_used_again(memory: Path, how: str) -> None:
    transport = FileTransport(memory)
    snapshot = transport.take(version(1).items(), 1, 4)
    ref = transport.publish(snapshot, PROBE)
    old, path = inode(ref), memory / "v000001-4.safetensors"
    with contextlib.ExitStack() as open_files:
        if how == "held":
            snapshot.hold()
            read = dict(snapshot.tensors())["b"]
        elif how == "mapped":
            read = torch.from_file(str(path), shared=True, size=ref.num_bytes // 4, dtype=torch.float32)[-9:]
        else:
            file = open_files.enter_context(path.open("rb"))
        publish(transport, 2)
        transport.prune(1)
        third = publish(transport, 3)
        assert inode(third) != old
        if how == "open":
            read = torch.frombuffer(bytearray(file.read()[-36:]), dtype=torch.float32)
        assert read.tolist() == version(1)["b"].tolist()
    if how == "held":
        snapshot.release()
        assert not snapshot.is_held


@pytest.mark.parametrize("is_held", [False, True])
def test_a_disk_is_given_a_copy_whose_memory_is_used_again(tmp_path: Path, is_held: bool) -> None:
    transport = FileTransport(tmp_path)
    first = transport.take(version(1).items(), 1, 4)
    transport.publish(first, PROBE)
    if is_held:
        first.hold()
    publish(transport, 2)
    third = transport.take(version(3).items(), 3, 4)
    assert (third.buffer is first.buffer, third.path) == (not is_held, None)
    transport.publish(third, PROBE)
    for number in (1, 2, 3):
        assert load_file(tmp_path / f"v00000{number}-4.safetensors")["b"].tolist() == version(number)["b"].tolist()
    if is_held:
        assert dict(first.tensors())["b"].tolist() == version(1)["b"].tolist()
    assert transport.prune(1) == [1, 2]


def test_pages_can_be_there_before_the_first_version(memory: Path) -> None:
    transport = FileTransport(memory)
    transport.prepare(infos_of(version(1).items()), 4)
    [spare] = memory.iterdir()
    old = spare.stat().st_ino
    transport.prepare(infos_of(version(1).items()), 4)
    assert inode(publish(transport, 1)) == old
    transport.prepare([TensorInfo("a", torch.float32, (3,))], 4)
    publish(transport, 2)  # of another size: the spare one does not fit
    assert sorted(path.name for path in memory.iterdir()) == ["v000001-4.safetensors", "v000002-4.safetensors"]


@pytest.mark.parametrize("moment", ["take", "prepare"])
def test_no_room_in_memory_is_said_before_a_page_is_written(
    memory: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    transport = FileTransport(memory)
    monkeypatch.setattr(os, "posix_fallocate", full)
    given = version(1)
    act = (
        partial(transport.take, given.items(), 1)
        if moment == "take"
        else partial(transport.prepare, infos_of(given.items()))
    )
    with pytest.raises(MachineError, match="No space left on device; free some space or set learner.weights_dir"):
        act()
    assert list(memory.iterdir()) == []


@pytest.mark.parametrize("change", ["missing", "other", "shape"])
def test_tensors_that_are_not_those_of_the_layout_are_refused_and_nothing_is_left(memory: Path, change: str) -> None:
    given = version(1)
    infos = infos_of(given.items())
    if change == "missing":
        del given["b"]
    elif change == "other":
        given["c"] = torch.zeros(1)
    else:
        given["b"] = torch.zeros(8)
    with pytest.raises(WeightsError, match="version 1: tensor '[bc]'"):
        FileTransport(memory).take(iter(given.items()), 1, infos=infos)
    assert list(memory.iterdir()) == []


def test_tensors_may_come_one_at_a_time_when_their_shapes_are_known(memory: Path) -> None:
    alive = []

    def one_by_one() -> Iterator[tuple[str, torch.Tensor]]:
        for name, tensor in version(5).items():
            alive.append(name)
            yield name, tensor
            assert alive.pop() == name

    transport = FileTransport(memory)
    snapshot = transport.take(one_by_one(), 5, infos=infos_of(version(5).items()))
    assert [name for name, _ in snapshot.tensors()] == ["a", "b"]
    assert sums.differences(snapshot.plan, version(5).items()) == []


def test_a_snapshot_of_nothing_is_a_file_of_its_header() -> None:
    layout = Layout([], has_sums=False)
    snapshot = Snapshot(layout, Buffer(layout.num_bytes, None), 1, 0)
    snapshot.fill([])
    assert b"".join(snapshot.chunks()) == layout.header(()) and snapshot.plan == ()
