"""The `rlsp` command: help, exit codes, and that it is light."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import rlsp_async
from rlsp_async.cli import command as cli
from rlsp_async.errors import ConfigError, DivergedError, MachineError

ROOT = Path(__file__).parents[2]


def rlsp(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rlsp_async.cli", *arguments],
        cwd=ROOT,
        text=True,
        check=False,
        capture_output=True,
        timeout=60,
    )


def test_importing_the_command_loads_no_heavy_library() -> None:
    code = (
        "import sys, rlsp_async, rlsp_async.cli, rlsp_async.runner.run, rlsp_async.preflight.settings, rlsp_async.cli.check; "
        "print([m for m in ('torch', 'vllm', 'transformers', 'zmq') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


def test_help_teaches_with_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for command in ("run", "check", "replay", "sampler", "verifier", "learner", "eval", "report", "demos", "tasks"):
        assert f"\n    {command}" in text
    assert "rlsp run   launch/configs/ops_cpu.toml name=b seed=3 stages.rlsp.steps=40" in text


@pytest.mark.parametrize(
    "command", ["run", "check", "replay", "sampler", "verifier", "learner", "eval", "report", "demos"]
)
def test_every_command_has_help(command: str) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main([command, "--help"])
    assert caught.value.code == 0


@pytest.mark.parametrize("command", ["run", "check"])
def test_missing_config_is_one_line_and_exit_2(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([command, "nowhere.toml"]) == 2
    assert capsys.readouterr().err == (
        "rlsp: nowhere.toml: no such file; shipped ones lie in launch/configs/, and their names suffice: ops_cpu_smoke\n"
    )


def test_unknown_key_as_a_process() -> None:
    done = rlsp("check", "launch/configs/ops_cpu_smoke.toml", "sampler.cuont=3")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "rlsp: launch/configs/ops_cpu_smoke.toml: unknown key 'sampler.cuont'; did you mean 'count'?"
    ]


@pytest.mark.parametrize(
    ("error", "code"),
    [(ConfigError("a"), 2), (MachineError("a"), 2), (DivergedError("a"), 3), (KeyboardInterrupt(), 130)],
)
def test_exit_codes(error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> int:
        raise error

    monkeypatch.setattr(cli.tasks, "show_tasks", fail)
    assert cli.main(["tasks"]) == code


def test_a_bug_rises_with_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> int:
        raise RuntimeError("a bug")

    monkeypatch.setattr(cli.tasks, "show_tasks", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        cli.main(["tasks"])


def test_overrides_may_stand_after_options() -> None:
    arguments = cli.parse(["sampler", "run.toml", "a=1", "--worker", "sampler-9", "b=2"])
    assert (arguments.overrides, arguments.worker) == (["a=1", "b=2"], "sampler-9")


@pytest.mark.parametrize("argv", [["report", "runs/x", "a=1"], ["run", "x.toml", "--fast"], ["fly"], []])
def test_what_it_does_not_know_is_exit_2(argv: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(argv)
    assert caught.value.code == 2


def test_report_of_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", str(tmp_path)]) == 2
    assert "is no run: it has no config.toml" in capsys.readouterr().err


def test_tasks_and_demonstrations(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["tasks"]) == 0
    assert "ops            The operator puzzle" in capsys.readouterr().out
    assert cli.main(["demos", "ops", "-n", "2"]) == 0
    text = capsys.readouterr().out
    assert text.count("--- ops/train/") == 2
    assert "</think>" in text


def test_demonstrations_of_an_unknown_task(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["demos", "opz"]) == 2
    assert "did you mean 'ops'?" in capsys.readouterr().err


def test_modules_of_the_working_directory_are_found(tmp_path: Path) -> None:
    """As the installed `rlsp` starts: without the working directory on its path (-P)."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "winners.py").write_text((ROOT / "rlsp_async" / "algos" / "reinforce.py").read_text())
    command = [
        sys.executable,
        "-P",
        "-m",
        "rlsp_async.cli",
        "check",
        str(ROOT / "launch/configs/ops_cpu_smoke.toml"),
        "stages.rlsp.algorithm.name=mine.winners",
        "stages.rlsp.algorithm.preset=",
    ]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
        check=False,
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "can run" in done.stdout


def test_a_full_disk_takes_the_words_and_leaves_the_exit_code():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "rlsp_async.cli", "check", "missing.toml"],
            stderr=full,
            stdout=subprocess.PIPE,
            check=False,
            timeout=60,
        )
        assert done.returncode == 2
        done = subprocess.run(
            [sys.executable, "-m", "rlsp_async.cli", "tasks"],
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
            timeout=60,
        )
    assert (done.returncode, done.stderr) == (2, b"")


def test_version_and_module():
    for words in (["-m", "rlsp_async", "--version"], ["-m", "rlsp_async.cli", "--version"]):
        done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (0, f"rlsp_async {rlsp_async.__version__}\n")
