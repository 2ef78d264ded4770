"""Where a run publishes: the choice, whose a directory is, and what is removed."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import torch

from rlsp_async.config import LearnerConfig, RunConfig, StageConfig
from rlsp_async.errors import MachineError
from rlsp_async.weights import place
from rlsp_async.weights.file import FileTransport
from rlsp_async.weights.probe import make_probe

PROBE = make_probe([3, 1, 4], [-0.5, -1.5])


def run_of(tmp_path: Path, name: str = "demo", weights_dir: object = "") -> RunConfig:
    return RunConfig(
        name=name,
        runs_dir=str(tmp_path / "runs"),
        stages={"only": StageConfig()},
        learner=LearnerConfig(weights_dir=str(weights_dir)),
    )


def publish(cfg: RunConfig, version: int) -> FileTransport:
    transport = FileTransport(place.choose_directory(cfg, 100), cfg.directory)
    transport.publish(transport.take([("a", torch.ones(3))], version, 7), PROBE)
    return transport


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    (tmp_path / "shm").mkdir()
    return tmp_path / "shm"


def test_weights_lie_in_memory_when_there_is_room_else_in_the_run(
    tmp_path: Path, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = run_of(tmp_path)
    monkeypatch.setattr(place, "_free_bytes", lambda directory: 400)
    assert place.find_place(cfg, 100, memory) == (place.shared_directory(cfg, memory), "")
    assert place.find_place(cfg, 101, memory) == (
        tmp_path / "runs/demo/weights",
        f"{memory} has room for 400 B, and the published versions may need 404 B",
    )
    elsewhere = run_of(tmp_path / "other")
    assert place.shared_directory(cfg, memory) != place.shared_directory(elsewhere, memory)
    assert not list(memory.iterdir()), "looking leaves nothing"
    own = place.shared_directory(cfg, memory)
    own.mkdir()
    (own / "v000001-1.safetensors").write_bytes(bytes(4))
    assert place.choose_directory(cfg, 101, memory) == own, "what it holds already is replaced"


def test_memory_that_is_missing_or_read_only_is_passed_over_with_its_reason(
    tmp_path: Path, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = run_of(tmp_path)
    assert place.find_place(cfg, 1, tmp_path / "none").why == f"{tmp_path / 'none'} is not there"
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != memory)  # root may write whatever the mode says
    assert place.find_place(cfg, 1, memory) == (tmp_path / "runs/demo/weights", f"{memory} cannot be written")


def test_a_directory_of_another_user_is_neither_used_nor_removed(
    tmp_path: Path, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = run_of(tmp_path)
    theirs = place.shared_directory(cfg, memory)
    theirs.mkdir()
    (theirs / "v000009-1.safetensors").write_bytes(b"planted")
    monkeypatch.setattr(os, "geteuid", lambda: theirs.stat().st_uid + 1)
    assert place.find_place(cfg, 1, memory).directory == tmp_path / "runs/demo/weights"
    assert "belongs to another user" in place.find_place(cfg, 1, memory).why
    place.remove_published(cfg, memory)
    assert theirs.is_dir()
    with pytest.raises(MachineError, match="belongs to another user.*set learner.weights_dir"):
        place.make_directory(theirs, cfg.directory, memory)


def test_a_link_in_memory_is_not_followed(tmp_path: Path, memory: Path) -> None:
    cfg = run_of(tmp_path)
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim/kept.txt").write_text("x")
    place.shared_directory(cfg, memory).symlink_to(tmp_path / "victim")
    assert "is no directory" in place.find_place(cfg, 1, memory).why
    place.remove_published(cfg, memory)
    assert (tmp_path / "victim/kept.txt").is_file()
    with pytest.raises(MachineError, match="is no directory"):
        place.make_directory(place.shared_directory(cfg, memory), None, memory)


def test_a_directory_in_memory_is_for_its_user_alone(tmp_path: Path, memory: Path) -> None:
    cfg = run_of(tmp_path)
    own = place.shared_directory(cfg, memory)
    own.mkdir(mode=0o755)  # of an older version
    for _ in range(2):
        place.make_directory(own, cfg.directory, memory)
        assert stat.S_IMODE(own.stat().st_mode) == 0o700
        assert (own / "RUN").read_text() == f"{cfg.directory}\n"


def test_two_runs_with_one_weights_dir_do_not_touch_each_other(tmp_path: Path) -> None:
    shared = tmp_path / "w"
    shared.mkdir()
    (shared / "v000012-7.safetensors").write_bytes(b"of a run of an older version, or the user's")
    one, two = run_of(tmp_path, "one", shared), run_of(tmp_path, "two", shared)
    first, second = publish(one, 1), publish(two, 9)
    assert first.directory.parent == second.directory.parent == shared
    place.remove_published(two)  # what the preparation of the second run does
    second = publish(two, 10)
    second.prune(1)
    assert (first.versions(), second.versions()) == ([1], [10])
    place.remove_published(one)
    place.remove_published(two)
    assert [path.name for path in shared.iterdir()] == ["v000012-7.safetensors"]


def test_a_directory_that_notes_another_run_is_left_alone(tmp_path: Path) -> None:
    cfg = run_of(tmp_path, "one", tmp_path / "w")
    directory = place.choose_directory(cfg, 1)
    directory.mkdir(parents=True)
    (directory / "RUN").write_text("/elsewhere/runs/one\n")
    with pytest.raises(MachineError, match="holds the weights of the run /elsewhere/runs/one"):
        publish(cfg, 1)
    place.remove_published(cfg)
    assert (directory / "RUN").is_file()


def test_the_chosen_directory_itself_stays(tmp_path: Path) -> None:
    """It may be a mount point, which nobody can remove."""
    cfg = run_of(tmp_path, weights_dir=tmp_path / "w")
    publish(cfg, 1)
    place.remove_published(cfg)
    assert list((tmp_path / "w").iterdir()) == []


@pytest.mark.parametrize("kind", ["file", "below a file", "full"])
def test_a_weights_dir_that_cannot_be_used_is_one_sentence(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "f").write_text("")
    where = {"file": tmp_path / "f", "below a file": tmp_path / "f/w", "full": tmp_path / "new/w"}[kind]
    monkeypatch.setattr(place, "_free_bytes", lambda directory: 399)
    with pytest.raises(MachineError) as caught:
        place.find_place(run_of(tmp_path, weights_dir=where), 100)
    words = "has room for 399 B" if kind == "full" else "cannot be written"
    assert str(caught.value).startswith(f"learner.weights_dir = {str(where)!r} {words}")
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
