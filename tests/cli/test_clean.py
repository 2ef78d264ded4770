"""`rlsp clean`: what runs that are over left in shared memory."""

import fcntl
import io
import os
from pathlib import Path

import pytest

from rlsp_async.cli.clean import clean
from rlsp_async.cli.command import main
from rlsp_async.weights.leftovers import find_leftovers, shared_name

NOW = 2_000_000_000.0


def left(memory: Path, run: Path, owner: bool = True, age_s: float = 9_000.0) -> Path:
    path = memory / shared_name(run.name, run)
    path.mkdir(parents=True)
    (path / "v000003-7.safetensors").write_bytes(bytes(1_000_000))
    if owner:
        (path / "RUN").write_text(f"{run}\n")
    for file in path.iterdir():
        os.utime(file, (NOW - age_s, NOW - age_s))
    return path


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    (tmp_path / "shm" / "rlsp_other").mkdir(parents=True)
    (tmp_path / "shm" / "rlsp-x-12345678").write_text("no directory")
    return tmp_path / "shm"


def run(tmp_path: Path, name: str) -> Path:
    path = tmp_path / "runs" / name
    path.mkdir(parents=True)
    (path / "config.toml").write_text("")
    return path


def test_lists_first_and_removes_with_yes_what_no_run_uses(tmp_path: Path, memory: Path) -> None:
    gone, stopped = left(memory, tmp_path / "runs" / "gone"), left(memory, run(tmp_path, "stopped"))
    unknown, fresh = left(memory, tmp_path / "other" / "u", owner=False), left(memory, run(tmp_path, "new"), age_s=30.0)
    at_work = left(memory, run(tmp_path, "busy"))
    found = {one.path: (one.in_use, one.state) for one in find_leftovers(tmp_path / "runs", NOW, memory)}
    assert found[gone] == (False, "the run's directory is gone")
    assert found[stopped][0] is False
    assert found[unknown] == (False, "of an unknown run, not written")
    assert found[fresh] == (True, "written in the last 10 minutes")
    with (tmp_path / "runs" / "busy" / "hub.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        out = io.StringIO()
        assert clean(tmp_path / "runs", remove=False, now=NOW, shared_memory=memory, out=out) == 0
        assert gone.is_dir()
        assert "2.9 MiB of memory in 3 directories; rlsp clean --yes removes them" in out.getvalue()
        assert f"in use    976.6 KiB  {at_work}  ({tmp_path / 'runs' / 'busy'}: the run is at work)" in out.getvalue()
        clean(tmp_path / "runs", remove=True, now=NOW, shared_memory=memory, out=out)
    assert sorted(path.name for path in memory.iterdir()) == sorted(
        [fresh.name, at_work.name, "rlsp_other", "rlsp-x-12345678"]
    )


def test_a_directory_without_a_note_is_known_by_its_run(tmp_path: Path, memory: Path) -> None:
    path = left(memory, run(tmp_path, "old"), owner=False)
    (one,) = find_leftovers(tmp_path / "runs", NOW, memory)
    assert (one.path, one.run, one.in_use) == (path, tmp_path / "runs" / "old", False)


def test_the_command_needs_no_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["clean", str(tmp_path)]) == 0
    assert "/dev/shm" in capsys.readouterr().out


def test_a_directory_that_cannot_be_read_or_is_a_link_is_left_alone(
    tmp_path: Path, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = left(memory, tmp_path / "runs" / "theirs")
    (memory / "rlsp-link-12345678").symlink_to(tmp_path)
    real = Path.iterdir

    def refuses(path: Path) -> object:  # root reads whatever the mode says
        if path == theirs:
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(Path, "iterdir", refuses)
    out = io.StringIO()
    assert clean(tmp_path / "runs", remove=True, now=NOW, shared_memory=memory, out=out) == 0
    assert out.getvalue().splitlines() == [
        f"in use          0 B  {theirs}  (run unknown: it cannot be read: Permission denied)",
        f"{memory}: nothing is left over (1 in use)",
    ]


def test_a_directory_of_another_user_is_left_alone_and_nothing_in_it_is_opened(
    tmp_path: Path, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = memory / "rlsp-theirs-12345678"
    theirs.mkdir()
    os.mkfifo(theirs / "RUN")  # whoever opens it waits for ever
    uid = theirs.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
    out = io.StringIO()
    assert clean(tmp_path / "runs", remove=True, now=NOW, shared_memory=memory, out=out) == 0
    assert out.getvalue().splitlines()[0] == (
        f"in use          0 B  {theirs}  (run unknown: of another user, uid {uid})"
    )
    assert theirs.is_dir()


def test_what_stands_in_shared_memory_commands_no_terminal(tmp_path: Path, memory: Path) -> None:
    path = left(memory, tmp_path / "runs" / "x\x1b[2J")
    (path / "RUN").write_text("/tmp/\x1b]0;mine\x07\nrlsp learner: all is lost\u202e")
    os.utime(path / "RUN", (NOW - 9_000, NOW - 9_000))
    out = io.StringIO()
    clean(tmp_path / "runs", remove=False, now=NOW, shared_memory=memory, out=out)
    lines = out.getvalue().splitlines()
    assert len(lines) == 2
    assert all(line.isprintable() for line in lines)
    assert "rlsp learner: all is lost : the run's directory is gone)" in lines[0]
