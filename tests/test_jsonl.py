"""JSON lines: what is written is read, a torn end is survived, a broken middle is named."""

from pathlib import Path

import pytest

from rlsp_async.errors import DataError, MachineError
from rlsp_async.jsonl import JsonlWriter, read_jsonl


def test_rows_are_readable_as_soon_as_they_are_written(tmp_path: Path) -> None:
    with JsonlWriter(tmp_path / "deep" / "metrics.jsonl") as writer:
        writer.write({"step": 1, "reward": 0.5})
        writer.write({"step": 2, "reward": float("nan")})
        assert read_jsonl(writer.path) == [{"step": 1, "reward": 0.5}, {"step": 2, "reward": None}]


def test_missing_file_is_empty(tmp_path: Path) -> None:
    assert read_jsonl(tmp_path / "nothing.jsonl") == []


@pytest.mark.parametrize("torn", [b'{"step": 2, "rew', b'{"step": 2}', b"{" + b"x" * 200_000])
def test_torn_last_line_is_left_out_and_cut_before_the_next(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step":1}\n' + torn)
    assert read_jsonl(path) == [{"step": 1}]
    with JsonlWriter(path) as writer:
        writer.write({"step": 3})
    assert read_jsonl(path) == [{"step": 1}, {"step": 3}]


def test_file_of_nothing_but_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"st')
    JsonlWriter(path).close()
    assert path.read_bytes() == b""


def test_broken_line_inside_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step":1}\n{oops\n{"step":2}\n')
    with pytest.raises(DataError, match=r"metrics.jsonl, line 2: no valid JSON"):
        read_jsonl(path)


def test_line_that_is_no_object_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"[1]\n")
    with pytest.raises(DataError, match="line 1: a JSON object is expected, not list"):
        read_jsonl(path)


def test_full_disk_is_one_sentence() -> None:
    with (
        JsonlWriter(Path("/dev/full")) as writer,
        pytest.raises(MachineError, match="/dev/full: cannot be written: No space left on device"),
    ):
        writer.write({"step": 1})
