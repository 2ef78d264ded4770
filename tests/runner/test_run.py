"""`rlsp run`: what is bad is said in one line before anything is written; then the line, killed and continued."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from rlsp_async.config import RunConfig, StageConfig
from rlsp_async.errors import ConfigError, DataError, MachineError
from rlsp_async.messages import Status
from rlsp_async.runner import run as runner
from rlsp_async.runner.supervise import RunEnd
from rlsp_async.weights import place
from tests.runner.given import settings

ROOT = Path(__file__).parents[2]
SMOKE = ROOT / "launch" / "configs" / "ops_cpu_smoke.toml"


def rlsp(runs: Path, *overrides: str, config: Path = SMOKE) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rlsp_async.cli", "run", str(config), f"runs_dir={runs}", *overrides],
        cwd=ROOT,
        text=True,
        check=False,
        capture_output=True,
        timeout=160,
    )


# --- before anything is written ------------------------------------------------------------------------------------


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def test_a_port_in_use(taken_port: int) -> None:
    with pytest.raises(MachineError, match=f"{taken_port}' cannot be used: Address already in use; choose"):
        runner.check_port(f"tcp://127.0.0.1:{taken_port}")


@pytest.mark.parametrize("address", ["localhost:5555", "tcp://127.0.0.1", "tcp://127.0.0.1:99999", "http://x:1"])
def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises(ConfigError, match="write it like tcp://127.0.0.1:5555"):
        runner.check_port(address)


def test_an_address_of_another_machine() -> None:
    for address in ("tcp://192.0.2.1:5555", "tcp://0.0.0.0:0"):
        with pytest.raises(MachineError, match="without keys the hub binds to this machine only"):
            runner.check_port(address)


class _Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner.shutil, "disk_usage", lambda _: _Usage(10, 10, 1 << 20))
    with pytest.raises(MachineError, match=r"has 1\.0 MiB free, the run may need .* MiB; free some, or set runs_dir"):
        runner.check_machine(settings(tmp_path))


def test_a_runs_dir_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MachineError, match="cannot be made: Not a directory"):
        runner.check_machine(settings(tmp_path / "file" / "runs"))


def test_where_versions_go_is_said_and_judged_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MachineError, match=r"learner\.weights_dir = .*/file/w' cannot be written .*: Not a directory"):
        runner.check_machine(settings(tmp_path / "runs", learner={"weights_dir": str(tmp_path / "file/w")}))
    assert not list((tmp_path / "runs").iterdir())
    runner.check_machine(settings(tmp_path / "runs"))
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(place, "_why_not", lambda directory, needed: "/dev/shm cannot be written")
    runner.check_machine(settings(tmp_path / "runs"))
    said = f"rlsp: /dev/shm cannot be written: versions are published to {tmp_path}/runs/x/weights\n"
    assert capsys.readouterr().out == said


def test_a_missing_model(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"model\.path: /no/model: no such model directory; .* `hf download"):
        runner.check_machine(settings(tmp_path, model={"path": "/no/model"}))
    assert list(tmp_path.iterdir()) == []


def test_only_one_supervisor_at_a_time(tmp_path: Path) -> None:
    with (
        runner.locked(tmp_path),
        pytest.raises(MachineError, match="is being run by another `rlsp run`"),
        runner.locked(tmp_path),
    ):
        pass
    with runner.locked(tmp_path):
        pass


def test_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    options = {"path_train": "rows.jsonl", "path_test": "", "limit": 3}
    cfg = runner.resolve(
        settings(
            Path("runs"),
            model={"path": "mine"},
            task={"name": "jsonl", "options": options},
            learner={"weights_dir": "w"},
        )
    )
    assert cfg.learner.weights_dir == str(tmp_path / "w")
    assert cfg.task.options == {"path_train": str(tmp_path / "rows.jsonl"), "path_test": "", "limit": 3}
    assert (cfg.runs_dir, cfg.model.path) == (str(tmp_path / "runs"), str(tmp_path / "mine"))
    assert runner.resolve(settings(Path("runs"), model={"path": "tiny-qwen2"})).model.path == "tiny-qwen2"


def test_the_services_of_a_run(tmp_path: Path) -> None:
    cfg = settings(tmp_path, sampler={"count": 2, "threads": 3}, verifier={"count": 1}, learner={"threads": 2})
    found = {s.name: s.threads for s in runner.services(cfg)}
    assert found == {"replay-0": 1, "learner-0": 2, "sampler-0": 3, "sampler-1": 3, "verifier-0": 1}
    assert runner.services(cfg)[0].command[1:] == [
        "-m",
        "rlsp_async.cli",
        "replay",
        str(tmp_path / "x" / "config.toml"),
        "--worker",
        "replay-0",
    ]


def test_a_run_that_samples_nothing_starts_no_sampler(tmp_path: Path) -> None:
    stages = {"sft": {"source": "demonstrations", "groups_per_step": 4, "algorithm": {"name": "sft"}}}
    alone = settings(tmp_path, stages=stages)
    assert [s.name for s in runner.services(alone)] == ["replay-0", "learner-0"]
    for changed in ({"evaluation": {"after": ["sft"]}}, {"stages": {**stages, "rl": {"groups_per_step": 4}}}):
        roles = [s.role for s in runner.services(settings(tmp_path, **{"stages": stages, **changed}))]
        assert roles == ["replay", "learner", "sampler", "verifier"]
    unwanted = settings(tmp_path, stages=stages, evaluation={"after": ["sft"], "prompts": 0})
    assert len(runner.services(unwanted)) == 2


def test_bad_data_leaves_nothing_behind(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "2+2", "answer": "4"}\n{"prompt": "oops\n')
    done = rlsp(tmp_path / "runs", "task.name=jsonl", f"task.options={{path_train='{rows}'}}")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "rows.jsonl:2: is not valid JSON" in done.stderr
    assert "Traceback" not in done.stderr
    assert list((tmp_path / "runs").iterdir()) == []


# --- the line ------------------------------------------------------------------------------------------------------


def children(parent: int) -> list[int]:
    """Living processes whose parent this is."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == parent and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def written(directory: Path) -> dict[str, int]:
    """The time of the last change of every file."""
    return {str(path): path.stat().st_mtime_ns for path in directory.rglob("*") if path.is_file()}


def living(pids: list[int]) -> list[int]:
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


@pytest.mark.flow
@pytest.mark.timeout(240)
def test_killed_then_continued_then_finished(tmp_path: Path) -> None:
    """kill -9 of the supervisor takes every process with it; the same command continues; a third time only shows."""
    short = ["stages.sft.steps=60", "stages.sft.publish_every=0", "learner.checkpoint_every=20", "evaluation.prompts=4"]
    command = [sys.executable, "-m", "rlsp_async.cli", "run", str(SMOKE), f"runs_dir={tmp_path}", *short]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as first:
        metrics = tmp_path / "ops_cpu_smoke" / "metrics.jsonl"
        wait_for(lambda: metrics.exists() and metrics.read_text().count("\n") >= 3, 120.0)
        services = children(first.pid)
        first.send_signal(signal.SIGKILL)
    assert len(services) == 4
    wait_for(lambda: not living(services), 10.0)
    done = subprocess.run(
        [sys.executable, "-m", "rlsp_async.cli", "run", "--resume", str(tmp_path / "ops_cpu_smoke")],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "sft    60/60  1-60" in done.stdout
    assert (tmp_path / "ops_cpu_smoke" / "final" / "config.json").is_file()
    before = written(tmp_path)
    again = rlsp(tmp_path, *short)
    assert "finished already" in again.stdout
    assert written(tmp_path) == before  # no service was started


@pytest.mark.flow
@pytest.mark.timeout(180)
def test_ctrl_c_drains_and_leaves_no_process(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "rlsp_async.cli",
        "run",
        str(SMOKE),
        f"runs_dir={tmp_path}",
        "stages.sft.steps=5000",
    ]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:
        metrics = tmp_path / "ops_cpu_smoke" / "metrics.jsonl"
        wait_for(lambda: metrics.exists() and metrics.read_text().count("\n") >= 3, 120.0)
        services = children(running.pid)
        os.kill(running.pid, signal.SIGINT)
        text = running.communicate(timeout=60)[0]
    assert running.returncode == 130, text
    assert "rlsp: stopped" in text and "rlsp run --resume" in text
    assert "Traceback" not in text
    assert living(services) == []


def wait_for(condition: Any, bound_s: float) -> None:
    deadline = time.monotonic() + bound_s
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.1)


def test_a_refusal_before_any_work_is_told_from_a_run_that_has_something_to_lose():
    is_refusal = runner.is_refusal

    def status(step: int, **tokens: int) -> Status:
        return Status(
            run="x",
            stage="s",
            phase="running",
            stage_step=0,
            stage_steps=1,
            step=step,
            version=0,
            seconds=1.0,
            counts={},
            tokens=tokens,
            metrics={},
            workers=[],
        )

    rl = RunConfig(name="x", stages={"s": StageConfig()})
    sft = RunConfig(name="x", stages={"s": StageConfig(source="demonstrations"), "rl": StageConfig()})
    refused = RunEnd(2, "no CUDA device", "learner-0")
    assert is_refusal(rl, refused, None)
    assert is_refusal(rl, refused, status(0, generated=0))
    assert not is_refusal(rl, refused, status(0, generated=7))
    assert is_refusal(sft, refused, status(0, generated=7, waiting=7))
    assert not is_refusal(sft, refused, status(0, generated=7, evaluated=3))
    assert not is_refusal(rl, refused, status(1, generated=0))
    assert not is_refusal(rl, RunEnd(3, "diverged", "learner-0"), None)


# --- a directory that is moved, files that may not be opened, a learner that dies ------------------------------------


class Stopped:
    """A supervisor that is told to end."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def finish(self, code: int, reason: str = "", service: str = "") -> None:
        self.calls.append((code, reason))

    def kill(self) -> None:
        self.calls.append("kill")


@pytest.mark.parametrize("how", ["moved", "removed", "replaced"])
async def test_a_run_whose_directory_is_gone_ends_at_once_and_writes_nothing_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(runner, "LOOK_EVERY_S", 0.01)
    run, supervisor = tmp_path / "r", Stopped()
    run.mkdir()
    watching = asyncio.create_task(runner._watch_directory(run, supervisor))  # type: ignore[arg-type]
    await asyncio.sleep(0.05)
    assert not watching.done()
    run.rename(tmp_path / "elsewhere") if how != "removed" else run.rmdir()
    if how == "replaced":
        run.mkdir()
    async with asyncio.timeout(5.0):
        await watching
    [(code, reason), killed] = supervisor.calls
    assert (code, killed) == (2, "kill") and f"{run} was moved or removed while the run was at work" in reason


@pytest.mark.parametrize("gone", [True, False])
async def test_a_file_that_is_missing_because_the_run_was_moved_is_no_bug(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: bool
) -> None:
    """A service ends without a word, and the supervisor finds its log no more, before anybody has looked."""
    cfg = settings(tmp_path)
    (cfg.directory / "logs").mkdir(parents=True)

    class Reading(Stopped):
        def __init__(self, *_: Any, **__: Any) -> None:
            super().__init__()

        async def run(self) -> RunEnd:
            if gone:
                cfg.directory.rename(tmp_path / "elsewhere")
            raise FileNotFoundError(2, "No such file or directory", "logs")

    monkeypatch.setattr(runner, "Supervisor", Reading)
    if gone:
        end, _ = await runner.supervised(cfg)
        assert end == RunEnd(2, runner.moved(cfg.directory))
    else:
        with pytest.raises(FileNotFoundError):
            await runner.supervised(cfg)


def test_the_limit_of_open_files_is_raised_or_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg, limits, raised = settings(tmp_path), [(1024, 4096)], []
    monkeypatch.setattr(runner.resource, "getrlimit", lambda _: limits[0])
    monkeypatch.setattr(runner.resource, "setrlimit", lambda _, pair: raised.append(pair))
    needed = runner.files_needed(cfg)
    assert 48 < needed <= 64  # a limit of 64 is enough for the services of one machine
    runner.check_files(cfg)
    assert raised == []
    limits[0] = (40, 4096)
    runner.check_files(cfg)
    assert raised == [(needed, 4096)]
    limits[0] = (24, 40)
    with pytest.raises(MachineError, match=f"may open 40 files .* needs up to {needed}: raise that limit"):
        runner.check_files(cfg)
    crowd = settings(tmp_path, sampler={"count": 500})
    assert runner.files_needed(crowd) > 1000 > runner.files_needed(settings(tmp_path, sampler={"engine": "vllm"})) > 200


def test_a_learner_that_died_again_and_again_may_do_so_again(tmp_path: Path) -> None:
    reason = "learner-0 died 9 times in a row, last with signal SIGSEGV; its output is in x"
    said = runner.what_is_kept(tmp_path, reason, "learner-0")
    assert "tries the same step again, with the same batch" in said and "goes on from there" not in said
    assert "goes on from there" in runner.what_is_kept(tmp_path, reason.replace("learner", "sampler"), "sampler-0")
