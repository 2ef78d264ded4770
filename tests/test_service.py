"""What every process shares: exit codes, signals, logs, and where things are. Real processes."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import msgspec
import pytest

from rlsp_async import config, service
from rlsp_async.errors import ConfigError, DataError, DivergedError, MachineError
from rlsp_async.messages import Bye, Hello, Ping
from rlsp_async.report.results import Report
from tests.wire.hub import Hub

ROOT = service.Path(__file__).parents[1]
PATIENCE_S = 20.0
SETTINGS = """name = "t"
runs_dir = "{runs}"
[replay]
address = "{address}"
heartbeat_s = 0.05
timeout_s = 0.4
[stages.rlsp]
"""


@pytest.fixture
def write(tmp_path):
    """A run's settings in a file."""

    def make(address: str = "tcp://127.0.0.1:0") -> str:
        path = tmp_path / "run.toml"
        path.write_text(SETTINGS.format(runs=tmp_path, address=address))
        return str(path)

    return make


def start(body: str, *arguments: str, role: str = "sampler", **env: str) -> subprocess.Popen[str]:
    """A process whose service is `body`, the inside of `async def main(cfg, service)`."""
    lines = [
        "import asyncio, os",
        "from rlsp_async.errors import *",
        "from rlsp_async.service import serve, in_thread",
        "async def main(cfg, service):",
        textwrap.indent(textwrap.dedent(body), "    "),
        f"serve({role!r}, main)",
    ]
    return subprocess.Popen(
        [sys.executable, "-c", "\n".join(lines), *arguments],
        stdout=subprocess.PIPE,
        text=True,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | env,
    )


def log_of(tmp_path, worker: str = "sampler-0") -> list[dict]:
    return [json.loads(line) for line in (tmp_path / "t" / "logs" / f"{worker}.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("body", "code", "says", "trace"),
    [
        ("return", 0, "", False),
        ("1 / 0", 1, "ZeroDivisionError: division by zero", True),
        ("raise DataError('a.jsonl, line 3: no prompt')", 2, "rlsp sampler-0: a.jsonl, line 3: no prompt", False),
        ("raise OSError(28, 'No space left on device')", 2, "the disk is full; free some space", False),
        ("raise DivergedError('loss is NaN in stage rlsp')", 3, "rlsp sampler-0: loss is NaN in stage rlsp", False),
    ],
)
def test_exit_codes_and_what_people_and_the_log_are_told(write, tmp_path, body, code, says, trace):
    process = start(body, write())
    _, err = process.communicate(timeout=20)
    assert process.returncode == code, err
    assert says in err
    assert ("Traceback" in err) is trace
    assert trace or err.count("\n") == (code != 0)
    line = log_of(tmp_path)[-1]
    assert (line["level"], line["role"], line["worker"]) == ("error" if code else "info", "sampler", "sampler-0")


@pytest.mark.parametrize(
    ("errors", "code"),
    [((DivergedError("d"), ConfigError("c")), 3), ((DataError("d"), KeyError("bug")), 1), ((MachineError("m"),), 2)],
)
def test_of_errors_that_come_together_the_worst_decides(errors, code):
    group = BaseExceptionGroup("a", [BaseExceptionGroup("b", list(errors))])
    assert service.exit_code_of(group, Path("run")) == code


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["{config}", "replay.adress=x"], "unknown key 'replay.adress'; did you mean 'address'?"),
        (["/nowhere.toml"], "/nowhere.toml: no such file"),
        (["{config}", "runs_dir=/proc/x"], "cannot be written"),
    ],
)
def test_bad_settings_are_one_line_and_exit_code_2(write, arguments, says):
    process = start("return", *[text.format(config=write()) for text in arguments])
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err.count("\n")) == (2, 1)
    assert says in err


async def finished(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, err = await asyncio.to_thread(process.communicate, timeout=PATIENCE_S)
    return process.returncode, err


async def test_a_service_finds_the_hub_by_its_file_and_drains_on_sigterm(write, tmp_path):
    async with Hub() as hub:
        process = start("await service.work(None, info={'engine': 'none'}, credit=3)", write(), "--worker", "s-7")
        (tmp_path / "t").mkdir(exist_ok=True)
        (tmp_path / "t" / "hub.json").write_text(json.dumps({"address": hub.address, "pid": 1, "incarnation": 1}))
        await hub.until(lambda: len(hub.all(Ping)) >= 2, bound_s=15)
        process.send_signal(signal.SIGTERM)
        assert await finished(process) == (0, "")
        await hub.until(lambda: hub.all(Bye))
    hello = hub.all(Hello)[0]
    assert (hello.run, hello.role, hello.worker, hello.step) == ("t", "sampler", "s-7", -1)
    assert hello.info["engine"] == "none"
    assert hello.info["pid"] == str(process.pid)
    assert [line["event"] for line in log_of(tmp_path, "s-7")] == ["started", "welcome", "draining", "left", "finished"]


async def test_a_second_signal_cancels_what_does_not_drain_even_beside_a_stuck_thread(write, tmp_path):
    body = """
        import time
        service.on_drain(lambda reason: print('DRAIN', flush=True))
        stuck = in_thread(time.sleep)
        asyncio.ensure_future(stuck(600))
        print('READY', flush=True)
        await asyncio.sleep(600)
        """
    process = start(body, write())
    for expected in ("READY", "DRAIN"):
        assert await asyncio.to_thread(process.stdout.readline) == f"{expected}\n"
        process.send_signal(signal.SIGINT)
    assert service.KILL_S > PATIENCE_S, "the second signal ended it, not the time after the first"
    code, _ = await finished(process)
    assert code == 0
    assert log_of(tmp_path)[-1]["event"] == "cancelled"


def test_a_service_dies_with_its_supervisor_and_at_once_when_that_is_gone_already(write):
    settings = write()
    script = (
        "import os, subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', sys.argv[1], sys.argv[2]], stdout=subprocess.PIPE,\n"
        "                         env=os.environ | {'RLSP_SUPERVISOR_PID': str(os.getpid())})\n"
        "child.stdout.readline(); print(child.pid, flush=True); sys.stdin.readline()\n"
    )
    body = (
        "import asyncio\nfrom rlsp_async.service import serve\n"
        "async def main(cfg, service):\n    print('READY', flush=True)\n    await asyncio.sleep(600)\n"
        "serve('sampler', main)\n"
    )
    supervisor = subprocess.Popen(
        [sys.executable, "-c", script, body, settings],
        stdin=subprocess.PIPE,
        text=True,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    pid = int(supervisor.stdout.readline())
    assert is_alive(pid)
    supervisor.kill()
    supervisor.communicate(timeout=10)
    deadline = time.monotonic() + 5
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(pid)
    orphan = start("await asyncio.sleep(600)", settings, RLSP_SUPERVISOR_PID="1")
    orphan.communicate(timeout=20)
    assert orphan.returncode == 0


def is_alive(pid: int) -> bool:
    try:
        return service.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("role", ["replay", "sampler", "verifier", "learner"])
def test_help_loads_no_engine(role):
    code = (
        f"import runpy, sys; sys.argv = ['rlsp {role}', '--help']\n"
        f"try: runpy.run_path({str(service.service_path(role))!r}, run_name='__main__')\n"
        "finally: print(sorted({'torch', 'vllm', 'transformers', 'sympy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "[]"), done.stderr
    assert f"usage: rlsp {role}" in done.stdout


def test_a_role_without_a_script_is_one_clear_sentence():
    with pytest.raises(MachineError, match="no script for service 'painter'"):
        service.service_path("painter")


def test_a_worker_goes_to_the_address_in_its_environment(write, monkeypatch):
    monkeypatch.setenv("RLSP_HUB_ADDRESS", "tcp://127.0.0.1:6000")
    assert service.hub_address(config.load(write("tcp://127.0.0.1:5700"))) == "tcp://127.0.0.1:6000"


async def test_the_hubs_address_comes_from_the_settings_or_its_file_in_bounded_time(write, tmp_path):
    assert service.hub_address(config.load(write("tcp://127.0.0.1:5700"))) == "tcp://127.0.0.1:5700"
    cfg = config.load(write())
    assert service.hub_address(cfg) is None
    with pytest.raises(MachineError, match=r"hub\.json for 0 s: start `rlsp replay`"):
        await service.wait_for_hub(cfg, bound_s=0.2)
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "hub.json").write_text('{"address": "tcp://127.0.0.1:9999", "pid": 3, "incarnation": 2}')
    assert await service.wait_for_hub(cfg) == "tcp://127.0.0.1:9999"
    (tmp_path / "t" / "hub.json").write_text('{"addr')
    with pytest.raises(MachineError, match=r"hub\.json cannot be read"):
        service.hub_address(cfg)


def test_both_ends_take_their_limits_from_the_settings(write):
    cfg = config.load(write(), ["replay.max_message_mb=3"])
    assert service.limits_of(cfg) == service.ConnectionLimits(
        heartbeat_s=0.05, timeout_s=0.4, max_message_bytes=3_000_000, max_tokens=512
    )


async def test_a_worker_that_reaches_no_hub_says_so_within_seconds(monkeypatch):
    from types import SimpleNamespace

    from rlsp_async import service

    said: list[str] = []
    monkeypatch.setattr(service, "log", SimpleNamespace(warning=said.append))
    assert service.SILENT_S < 5
    await service.warn_of_silence(lambda: True, lambda: "tcp://h:1", 0.0)
    assert said == []
    await service.warn_of_silence(lambda: False, lambda: "tcp://h:1", 0.0)
    assert said[0].startswith("no hub answers yet at tcp://h:1; is it running")
    await service.warn_of_silence(lambda: False, lambda: None, 0.0)
    assert "an address that RUN/hub.json will name" in said[1]


ASKS = "if await service.has_work():\n    print('LOADED', flush=True)\n    await service.stopping.wait()"


async def test_a_worker_that_comes_after_the_end_is_sent_away_before_it_loads_anything(write, tmp_path):
    async with Hub() as hub:
        address = f"replay.address={hub.address}"
        process = start(ASKS, write(), address)
        assert await asyncio.to_thread(process.stdout.readline) == "LOADED\n", "the run goes on"
        process.send_signal(signal.SIGTERM)
        assert await finished(process) == (0, "")
        hub.router.run_over("the run is complete")
        process = start(ASKS, write(), address)
        out, err = await asyncio.to_thread(process.communicate, timeout=PATIENCE_S)
        assert (process.returncode, out, err) == (
            0,
            "rlsp sampler-0: the run is complete: there is nothing to do\n",
            "",
        )
        assert hub.all(Hello) == [], "who asks does not join"


def test_where_the_report_says_that_the_run_is_finished_no_hub_is_needed(write, tmp_path):
    settings = write("tcp://127.0.0.1:1")
    (tmp_path / "t").mkdir()
    report = Report(
        run="t", finished=True, directory=str(tmp_path / "t"), seconds=1.0, seed=0, stages=[], evaluations=[]
    )
    (tmp_path / "t" / "report.json").write_bytes(msgspec.json.encode(report))
    process = start(ASKS, settings)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, err) == (0, "")
    assert out == "rlsp sampler-0: the run is complete: there is nothing to do\n"


def test_a_worker_without_a_hub_says_so_loads_nothing_and_can_be_stopped(write):
    process = start(ASKS, write("tcp://127.0.0.1:1"), RLSP_STOPPED_CODE="143")
    assert process.stderr.readline() == (
        "rlsp sampler-0: no hub answers yet at tcp://127.0.0.1:1: nothing listens there "
        "(this process goes on trying, for up to 120 s)\n"
    )
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=PATIENCE_S) == ("", "")
    assert process.returncode == 143, "stopped, not done"
