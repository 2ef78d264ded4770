"""A snapshot: one version of the weights as the bytes of a safetensors file, copied once and read by everybody else.

    layout = Layout(infos)            where each tensor lies; the header that says so
    snapshot.fill(named tensors)      the one copy, in the thread that trains; then training goes on
    snapshot.plan                     the sums of its tensors (`sums.py`), computed in the thread that delivers
    with snapshot.held():             read `tensors()` or `chunks()`: its memory is not used for another version
    read_plan(path), check_file(..)   the other end

The file is laid out as safetensors does it, with a header of our own making: types of larger items first, then by
name, so equal weights are equal bytes. A file in shared memory has the sums of its tensors in its header, as
`__metadata__.sums`: 32 hexadecimal digits (s, w) for each tensor in the order of the file.

A buffer is the memory of one version: a mapped file in shared memory, or memory of this process alone where versions
are written to a disk. New pages cost several times a copy (they are found, cleared and entered one by one), so a
buffer is used again once its version was removed and nobody has its file open: `Buffer.is_alone` asks the kernel.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import mmap
import os
import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import structlog
import torch

from rlsp_async.errors import WeightsError
from rlsp_async.weights import sums
from rlsp_async.weights.sums import Plan, PlanEntry

FORMAT = {"format": "pt"}
SUMS = "sums"
_SUM_DIGITS = 32
_ORDER = {name: rank for rank, name in enumerate(sums.DTYPES)}
MAX_HEADER_BYTES = 100_000_000
CHUNK_BYTES = 8 * 2**20

log = structlog.get_logger(__name__)


class TensorInfo(NamedTuple):
    """Name, type and shape of a tensor."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]


class Extent(NamedTuple):
    """Where a tensor lies in a file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    """Offset of its first byte in the file."""
    end: int


class Layout:
    """Where each tensor of a version lies in its file."""

    def __init__(self, infos: Iterable[TensorInfo], has_sums: bool) -> None:
        """`has_sums`: the header has room for the sums of the tensors."""
        self.infos = sorted(infos, key=lambda info: (-_rank(info.dtype), info.name))
        self.has_sums = has_sums
        self.num_header = len(self.header(()))
        self.extents = [
            Extent(name, dtype, shape, self.num_header + begin, self.num_header + end)
            for name, dtype, shape, begin, end in self._data()
        ]
        self.num_bytes = self.extents[-1].end if self.extents else self.num_header

    def header(self, plan: Sequence[PlanEntry]) -> bytes:
        """The bytes before the first tensor.

        With `has_sums` a plan in the order of the file gives the sums; without one they are zeros, which take the same
        room.
        """
        metadata = FORMAT.copy()
        if self.has_sums:
            pairs = [(entry.s, entry.w) for entry in plan] or [(0, 0)] * len(self.infos)
            metadata[SUMS] = "".join(f"{s % 2**64:016x}{w % 2**64:016x}" for s, w in pairs)
        table: dict[str, Any] = {"__metadata__": metadata}
        for name, dtype, shape, begin, end in self._data():
            table[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
        text = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text

    def _data(self) -> Iterator[tuple[str, str, tuple[int, ...], int, int]]:
        """(name, type, shape, begin, end) of each tensor, counted from the end of the header."""
        begin = 0
        for info in self.infos:
            end = begin + math.prod(info.shape) * info.dtype.itemsize
            yield info.name, sums.NAMES[info.dtype], info.shape, begin, end
            begin = end


def infos_of(named_tensors: Iterable[tuple[str, torch.Tensor]]) -> list[TensorInfo]:
    """Names, types and shapes of tensors."""
    return [TensorInfo(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in named_tensors]


class Buffer:
    """Memory for one version, which may be used for another one later."""

    def __init__(self, num_bytes: int, path: Path | None) -> None:
        """Takes the memory; nothing of it is touched yet.

        Args:
            num_bytes: its size.
            path: the file that is made in shared memory; None: memory of this process.

        Raises:
            OSError: there is no room.
        """
        self.num_bytes, self.path = num_bytes, path
        self._registered = False
        self._file = -1
        if path is None:
            self.memory = mmap.mmap(-1, num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        else:
            path.unlink(missing_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            weakref.finalize(self, os.close, self._file)
            try:
                # A write to a mapped page for which there is no room would kill the process.
                os.posix_fallocate(self._file, 0, num_bytes)
                self.memory = mmap.mmap(self._file, num_bytes)
            except OSError:
                path.unlink(missing_ok=True)
                raise
        self.bytes = torch.frombuffer(self.memory, dtype=torch.uint8)

    def touch(self) -> None:
        """Brings every page in, and zeroes it: a later copy finds them all."""
        for begin in range(0, self.num_bytes, CHUNK_BYTES):
            self.bytes[begin : begin + CHUNK_BYTES].zero_()

    def register(self) -> None:
        """Pins the pages for CUDA, once; a refusal is said and costs speed alone."""
        if self._registered:
            return
        self._registered = True
        address = self.bytes.data_ptr()
        cudart: Any = torch.cuda.cudart()  # type: ignore[no-untyped-call]
        error = cudart.cudaHostRegister(address, self.num_bytes, 0)
        if int(error) != 0:
            log.warning("pages are not pinned: copies from the GPU are slower", bytes=self.num_bytes, error=str(error))
        else:
            weakref.finalize(self, cudart.cudaHostUnregister, address)

    def is_alone(self) -> bool:
        """Whether no other process, and no other open file, can see the memory. Without an answer: no.

        A write lease is granted only to the one who has a file open alone; mappings count as open files.
        """
        if self.path is None:
            return True
        try:
            fcntl.fcntl(self._file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            fcntl.fcntl(self._file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        except OSError:
            return False
        return True

    def rename(self, path: Path) -> None:
        """Gives the file another name, in the place of what stood there. Raises OSError."""
        assert self.path is not None
        self.path.replace(path)
        self.path = path


class Snapshot:
    """One version of the weights in a buffer."""

    def __init__(self, layout: Layout, buffer: Buffer, version: int, incarnation: int) -> None:
        """Its tensors are undefined until `fill`."""
        self.layout, self.buffer, self.version, self.incarnation = layout, buffer, version, incarnation
        self._views = {extent.name: _view(buffer.bytes, extent) for extent in layout.extents}
        self._lock = threading.Lock()
        self._num_holds = 0
        self._device_sums: dict[str, torch.Tensor] = {}
        self._plan: Plan | None = None

    @property
    def path(self) -> Path | None:
        """Its file in shared memory, under the present name; None when it has none."""
        return self.buffer.path

    @property
    def num_bytes(self) -> int:
        """Size of its file."""
        return self.layout.num_bytes

    @torch.no_grad()
    def fill(self, named_tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Copies the tensors, in any order; one is held at a time.

        From a GPU the copies run one after the other without waiting, into pinned pages; one event ends them.

        Args:
            named_tensors: (name, tensor) of each tensor of the layout, on any device.

        Raises:
            WeightsError: they are not the tensors of the layout.
        """
        missing = dict(self._views)
        for name, tensor in named_tensors:
            view = missing.pop(name, None)
            if view is None or view.shape != tensor.shape or view.dtype != tensor.dtype:
                raise WeightsError(f"version {self.version}: tensor {name!r} is not one of its layout")
            if tensor.is_cuda:
                self.buffer.register()
                self._device_sums[name] = sums.on_device(tensor)
            view.copy_(tensor, non_blocking=tensor.is_cuda)
        if missing:
            raise WeightsError(f"version {self.version}: tensor {min(missing)!r} is missing")
        if self._device_sums:
            done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            done.record()
            done.synchronize()

    @property
    def plan(self) -> Plan:
        """The sums of its tensors in the order of the file; computed at the first call, from any thread."""
        with self._lock:
            if self._plan is None:
                pairs = {name: tuple(t.tolist()) for name, t in self._device_sums.items()}
                self._device_sums.clear()
                self._plan = tuple(
                    PlanEntry(p.name, p.dtype, p.shape, *(pairs.get(p.name) or sums.sums(self._views[p.name])))
                    for p in self.layout.extents
                )
            return self._plan

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """(name, view) of each tensor in the order of the file. To be read while the snapshot is held."""
        yield from self._views.items()

    def chunks(self) -> Iterator[memoryview]:
        """The bytes of a plain file of its tensors, without sums, piece by piece. To be read while it is held."""
        yield memoryview(Layout(self.layout.infos, has_sums=False).header(()))
        whole = memoryview(self.buffer.memory)
        for begin in range(self.layout.num_header, self.num_bytes, CHUNK_BYTES):
            yield whole[begin : min(begin + CHUNK_BYTES, self.num_bytes)]

    def write_header(self) -> None:
        """Writes the header, with the sums where the layout has them, into the buffer."""
        header = self.layout.header(self.plan if self.layout.has_sums else ())
        self.buffer.memory[: len(header)] = header

    def hold(self) -> None:
        """Keeps the memory as it is until `release`; to be called before the version can be superseded."""
        with self._lock:
            self._num_holds += 1

    def release(self) -> None:
        """Ends one `hold`."""
        with self._lock:
            assert self._num_holds > 0
            self._num_holds -= 1

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """A block in which the memory stays as it is."""
        self.hold()
        try:
            yield
        finally:
            self.release()

    @property
    def is_held(self) -> bool:
        """Whether somebody reads it."""
        with self._lock:
            return self._num_holds > 0


# --- the other end ---------------------------------------------------------------------------------------------------


def read_extents(path: Path) -> tuple[list[Extent], str]:
    """Reads the header of a safetensors file.

    Returns:
        Where its tensors lie, and the sums that it holds ("" for none).

    Raises:
        WeightsError: the file has no such header.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
            raise WeightsError(f"{path}: a header of {length} bytes in a file of {size}: it is no safetensors file")
        text = file.read(length)
    try:
        table = json.loads(text)
        metadata = table.pop("__metadata__", {})
        extents = sorted(
            (_extent(name, row, 8 + length) for name, row in table.items()), key=lambda extent: extent.begin
        )
        held = metadata.get(SUMS, "")
        if not isinstance(held, str) or (held and len(held) != _SUM_DIGITS * len(extents)):
            raise ValueError("sums of other tensors")
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise WeightsError(f"{path}: its header is damaged: {e!r}") from e
    for extent in extents:
        if not 8 + length <= extent.begin <= extent.end <= size:
            raise WeightsError(f"{path}: {extent.name[:80]!r} lies outside of the file")
    return extents, held


def read_plan(path: Path) -> Plan:
    """The plan of a file: from its header where that has the sums, else computed from its tensors.

    Raises:
        WeightsError: the header is damaged.
        OSError: it cannot be read.
    """
    extents, held = read_extents(path)
    if not held:
        return computed_plan(path, extents)
    try:
        numbers = [int(held[at : at + 16], 16) for at in range(0, len(held), 16)]
    except ValueError as e:
        raise WeightsError(f"{path}: its header is damaged: {e}") from e
    pairs = zip(numbers[::2], numbers[1::2], strict=True)
    return tuple(
        PlanEntry(extent.name, extent.dtype, extent.shape, sums.signed(s), sums.signed(w))
        for extent, (s, w) in zip(extents, pairs, strict=True)
    )


def computed_plan(path: Path, extents: Iterable[Extent]) -> Plan:
    """The plan of the tensors that a file holds, from its bytes. Raises OSError."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as memory:
        found = []
        for extent in extents:
            kind = np.dtype(f"i{sums.DTYPES[extent.dtype].itemsize}")
            values = np.frombuffer(memory, kind, (extent.end - extent.begin) // kind.itemsize, extent.begin)
            found.append(PlanEntry(extent.name, extent.dtype, extent.shape, *sums.sums_of_integers(values)))
            del values  # a mapping with views cannot be closed
        return tuple(found)


def check_file(path: Path, digest: str) -> None:
    """Raises WeightsError when the tensors of a file are not those of a digest "sums:..."; it names up to three."""
    plan = read_plan(path)
    if sums.digest(plan) != digest:
        raise WeightsError(f"{path} holds other weights: {sums.digest(plan)}, published were {digest}")
    found = computed_plan(path, read_extents(path)[0])
    wrong = [now.name for now, then in zip(found, plan, strict=True) if now != then]
    if wrong:
        raise WeightsError(f"{path}: {len(wrong)} tensors have other values than were published: {wrong[:3]}")


def _extent(name: str, row: dict[str, Any], data: int) -> Extent:
    """A row of a header, checked. Raises ValueError, KeyError, TypeError."""
    dtype, shape, (begin, end) = row["dtype"], tuple(row["shape"]), row["data_offsets"]
    if not all(type(value) is int and value >= 0 for value in (*shape, begin, end)):
        raise ValueError(f"{name[:80]!r} has no shape")
    if end - begin != math.prod(shape) * sums.DTYPES[dtype].itemsize:
        raise ValueError(f"{name[:80]!r} has {end - begin} bytes for a shape of {list(shape)}")
    return Extent(name, dtype, shape, data + begin, data + end)


def _view(whole: torch.Tensor, extent: Extent) -> torch.Tensor:
    """A tensor in the bytes of a buffer."""
    dtype = sums.DTYPES[extent.dtype]
    if extent.begin == extent.end:
        return torch.empty(extent.shape, dtype=dtype)
    return whole[extent.begin : extent.end].view(dtype).view(extent.shape)


def _rank(dtype: torch.dtype) -> int:
    """The rank of a type in the order of a file. Raises WeightsError for one that cannot be published."""
    name = sums.NAMES.get(dtype)
    if name is None:
        raise WeightsError(f"tensors of type {dtype} cannot be published")
    return _ORDER[name]
