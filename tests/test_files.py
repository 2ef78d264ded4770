"""Files are whole under their name, whatever happens while they are written."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from rlsp_async import files


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.parametrize("durable", [True, False])
def test_content_replaces_what_was_there_and_leaves_nothing_beside_it(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "a.json"
    files.replace_file(path, b"old", durable=durable)
    files.replace_file(path, "n\u00e9w", durable=durable)
    assert path.read_bytes() == b"n\xc3\xa9w" and names(tmp_path) == ["a.json"]


def test_an_error_in_the_middle_leaves_the_old_content_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.replace_file(path, b"old", durable=False)
    with pytest.raises(TypeError), files.being_replaced(path, durable=True) as file:
        file.writelines([b"half", None])  # type: ignore[list-item]
    assert path.read_bytes() == b"old" and names(tmp_path) == ["a.json"]


def test_a_half_file_of_a_killed_process_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / f".a.json.{os.getpid()}.tmp").write_bytes(b"half of an earlier process that had this pid")
    files.replace_file(tmp_path / "a.json", b"new", durable=False)
    assert names(tmp_path) == ["a.json"]


def test_a_file_has_its_mode_from_the_first_byte(tmp_path: Path) -> None:
    with files.being_replaced(tmp_path / "secret", durable=False, mode=0o600) as file:
        assert stat.S_IMODE(os.fstat(file.fileno()).st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600


def test_durable_syncs_the_bytes_before_the_name_and_the_name_before_it_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    monkeypatch.setattr(files, "sync", lambda path: done.append(f"sync {path.name or path}"))
    real = Path.replace
    monkeypatch.setattr(Path, "replace", lambda self, to: (done.append("rename"), real(self, to))[1])
    files.replace_file(tmp_path / "a", b"x", durable=True)
    assert [word.split()[0] for word in done] == ["sync", "rename", "sync"]
    assert done[0] == f"sync .a.{os.getpid()}.tmp" and done[2] == f"sync {tmp_path.name}"
    done.clear()
    files.replace_file(tmp_path / "a", b"x", durable=False)
    assert done == ["rename"]


def test_a_directory_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(TypeError), files.directory_being_made(tmp_path / "deep" / "run") as made:
        (made / "half").write_bytes(None)  # type: ignore[arg-type]
    assert names(tmp_path / "deep") == []
    with files.directory_being_made(tmp_path / "deep" / "run") as made:
        (made / "whole").touch()
        assert not (tmp_path / "deep" / "run").exists()
    assert names(tmp_path / "deep") == ["run"] and names(tmp_path / "deep" / "run") == ["whole"]
    assert stat.S_IMODE((tmp_path / "deep" / "run").stat().st_mode) == 0o755


def test_the_digest_is_that_of_sha256sum(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert files.sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_readable_gives_the_mode_of_open(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).touch(0o600)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    (tmp_path / "plain").write_text("")
    files.readable(tmp_path)
    assert {path.stat().st_mode for path in tmp_path.iterdir()} == {(tmp_path / "plain").stat().st_mode}


@pytest.mark.parametrize(("mask", "file_mode", "directory_mode"), [(0o022, 0o644, 0o755), (0o077, 0o600, 0o700)])
def test_what_safetensors_or_mkdtemp_made_private_has_the_mode_of_the_umask(
    tmp_path: Path, mask: int, file_mode: int, directory_mode: int
) -> None:
    before = os.umask(mask)
    try:
        assert files.umask() == mask
        with files.directory_being_made(tmp_path / "run") as made:
            (made / "model.safetensors").touch(mode=0o600)
            (made / "other").touch()
            files.readable(made)
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "run").iterdir()}
    assert modes == {"model.safetensors": file_mode, "other": file_mode}
    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == directory_mode
