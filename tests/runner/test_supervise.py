"""The supervisor on small made-up services: restarts, budgets, final exits, the two steps of stopping, no orphans."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from rlsp_async.runner import supervise
from rlsp_async.runner.supervise import (
    RestartBudget,
    RunEnd,
    ServiceProcess,
    Supervisor,
    exit_text,
    last_words,
    service_environment,
)

FOREVER = "import time; time.sleep(60)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)"
)


def service(directory: Path, role: str, code: str, name: str = "") -> ServiceProcess:
    name = name or f"{role}-0"
    return ServiceProcess(
        name=name, role=role, command=[sys.executable, "-S", "-c", code], log=directory / f"{name}.out"
    )


def budget(tries: int = 2) -> RestartBudget:
    return RestartBudget(tries=tries, first_s=0.01, longest_s=0.02)


async def supervised(*services: ServiceProcess, tries: int = 2, drain_s: float = 5.0) -> tuple[RunEnd, list[str]]:
    said: list[str] = []
    supervisor = Supervisor(list(services), said.append, lambda: budget(tries))
    return await supervisor.run(drain_s), said


async def test_the_run_is_over_when_the_hub_ends(tmp_path: Path) -> None:
    ended = tmp_path / "ended by itself"
    learner = f"{FOREVER}; open({str(ended)!r}, 'w')"
    end, said = await supervised(service(tmp_path, "replay", ""), service(tmp_path, "learner", learner), drain_s=3600.0)
    assert (end, said) == (RunEnd(0), [])
    assert not ended.exists()


async def test_a_worker_that_dies_is_started_again(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    path = f"pathlib.Path({str(mark)!r})"
    once = f"import os, pathlib; p = {path}; p.exists() or (p.touch(), os.kill(os.getpid(), 9)); {FOREVER}"
    hub = f"import pathlib, time\nwhile not pathlib.Path({str(mark)!r}).exists(): time.sleep(0.02)\ntime.sleep(0.3)"
    end, said = await supervised(service(tmp_path, "replay", hub), service(tmp_path, "sampler", once))
    assert end == RunEnd(0)
    assert said == ["sampler-0 ended with signal SIGKILL; it is started again in 0.01 s (1 of 2)"]


async def test_a_service_that_stands_still_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervise, "CHECK_EVERY_S", 0.01)
    mark = f"import pathlib, time; p = pathlib.Path({str(tmp_path / 'mark')!r})\n"
    first = (
        "import json, os\nif p.exists(): p.with_name('second').touch()\np.touch()\n"
        "part = ['thread learner_0', time.monotonic() - 99.0, 90.0]\n"
        "line = json.dumps({'pid': os.getpid(), 'parts': [part]})\n"
        "pathlib.Path(os.environ['RLSP_PULSE']).write_text(line)\ntime.sleep(600)"
    )
    hub = mark + "while not p.with_name('second').exists(): time.sleep(0.02)"
    end, said = await supervised(service(tmp_path, "replay", hub), service(tmp_path, "learner", mark + first), tries=9)
    assert end == RunEnd(0)
    assert said[0].startswith("learner-0 stands still (process ")
    assert said[0].endswith(": thread learner_0 has not moved for 99 s (bound 90 s)): it is killed and started again")
    assert said[1].startswith("learner-0 ended with signal SIGKILL; it is started again")


async def test_exit_code_2_is_final_and_its_sentence_is_passed_on(tmp_path: Path) -> None:
    code = "import sys; print('noise'); print('rlsp learner-0: no CUDA device: set learner.device'); sys.exit(2)"
    end, said = await supervised(service(tmp_path, "replay", FOREVER), service(tmp_path, "learner", code))
    assert (end, said) == (RunEnd(2, "no CUDA device: set learner.device", "learner-0"), [])


async def test_what_an_earlier_start_said_is_not_why_this_one_ended(tmp_path: Path) -> None:
    hub = service(tmp_path, "replay", "import sys; sys.exit(3)")
    hub.log.write_text("rlsp replay-0: stage rl: 50 of the last 50 groups failed\n")
    end, _ = await supervised(hub)
    assert end == RunEnd(3, "replay-0 ended with exit code 3", "replay-0")


async def test_a_service_that_ends_with_2_and_no_word_met_a_full_disk(tmp_path: Path) -> None:
    """On a full disk the sentence itself could not be written; meanwhile somebody may have made room."""
    end, _ = await supervised(service(tmp_path, "replay", "import sys; sys.exit(2)"))
    assert (end.code, end.service) == (2, "replay-0")
    assert end.reason.startswith(f"{tmp_path.parent}: the disk was full when replay-0 had to write (")
    assert end.reason.endswith(" MiB are free now); free some space")


async def test_exit_code_3_is_final_too(tmp_path: Path) -> None:
    end, _ = await supervised(service(tmp_path, "replay", "import sys; sys.exit(3)"))
    assert end == RunEnd(3, "replay-0 ended with exit code 3", "replay-0")


async def test_a_spent_budget_ends_the_run(tmp_path: Path) -> None:
    words = "import os, sys; print(''.join(chr(97 + byte % 26) for byte in os.urandom(20))); sys.exit(1)"
    end, said = await supervised(service(tmp_path, "replay", FOREVER), service(tmp_path, "verifier", words))
    assert (end.code, end.service, len(said)) == (1, "verifier-0", 2)
    assert end.reason.startswith("verifier-0 died 3 times in a row, last with exit code 1; its output is in ")


async def test_a_service_that_cannot_start_ends_the_run_with_its_own_sentence(tmp_path: Path) -> None:
    bad = "print('rlsp learner-0: ValueError: Invalid learning rate: -0.1 at 0x%x' % id(object())); raise SystemExit(1)"
    end, said = await supervised(
        service(tmp_path, "replay", FOREVER), service(tmp_path, "learner", bad), tries=8, drain_s=0.1
    )
    assert (end.code, end.service, len(said)) == (1, "learner-0", 2)
    assert end.reason.startswith("learner-0 cannot start: ValueError: Invalid learning rate: -0.1 at 0x")
    assert end.reason.endswith(f"; its output is in {tmp_path / 'learner-0.out'}")


async def test_a_hub_that_gives_up_says_what_the_service_said_for_which_it_waited(tmp_path: Path) -> None:
    once = f"import pathlib, time; p = pathlib.Path({str(tmp_path / 'died')!r})\n"
    learner = (
        once + "if not p.exists(): p.touch(); print('rlsp learner-0: KeyError: 9'); raise SystemExit(1)\ntime.sleep(60)"
    )
    hub = (
        once
        + "while not p.exists(): time.sleep(0.02)\ntime.sleep(0.5)\nprint('rlsp replay-0: waits for the learner'); raise SystemExit(3)"
    )
    end, _ = await supervised(service(tmp_path, "replay", hub), service(tmp_path, "learner", learner), drain_s=0.1)
    assert end == RunEnd(3, "waits for the learner; learner-0 ended at its start with: KeyError: 9", "replay-0")


async def test_stopping_drains_in_order(tmp_path: Path) -> None:
    order = tmp_path / "order"

    def polite(name: str) -> str:
        return (
            f"import signal, sys, time\ndef stop(*_):\n open({str(order)!r}, 'a').write('{name} ')\n sys.exit(0)\n"
            f"signal.signal(signal.SIGTERM, stop)\nprint('ready', flush=True)\ntime.sleep(60)"
        )

    services = [service(tmp_path, role, polite(role)) for role in ("replay", "learner", "sampler")]
    supervisor = Supervisor(services, lambda _: None, budget)
    running = asyncio.create_task(supervisor.run(5.0))
    await ready(tmp_path, 3)
    supervisor.finish(130, "stopped")
    assert await running == RunEnd(130, "stopped")
    assert order.read_text() == "learner sampler replay "


async def test_what_does_not_stop_is_killed(tmp_path: Path) -> None:
    services = [service(tmp_path, "replay", STUBBORN), service(tmp_path, "learner", STUBBORN)]
    supervisor = Supervisor(services, lambda _: None, budget)
    running = asyncio.create_task(supervisor.run(3600.0))
    await ready(tmp_path, 2)
    supervisor.finish(130, "stopped")
    await asyncio.sleep(0.1)
    assert not running.done()  # it drains, for an hour if need be
    supervisor.kill()
    async with asyncio.timeout(60):
        await running
    assert supervisor.alive(("replay", "learner")) == []


async def test_what_a_dead_service_left_behind_is_swept(tmp_path: Path) -> None:
    """Of every life, not only of the last one: an engine that outlives its sampler would hold memory and cores."""
    pids = tmp_path / "pids"
    code = (
        f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-S', '-c', {FOREVER!r}]); "
        f"open({str(pids)!r}, 'a').write(f'{{p.pid}}\\n'); sys.exit(1)"
    )
    await supervised(service(tmp_path, "replay", FOREVER), service(tmp_path, "sampler", code), tries=1)
    left = [int(line) for line in pids.read_text().split()]
    assert len(left) == 2
    for pid in left:
        await gone(pid)


async def ready(directory: Path, num: int) -> None:
    for _ in range(300):
        if sum("ready" in path.read_text() for path in directory.glob("*.out")) == num:
            return
        await asyncio.sleep(0.02)
    pytest.fail("the services did not start")


async def gone(pid: int) -> None:
    for _ in range(100):
        if not alive(pid):
            return
        await asyncio.sleep(0.02)
    pytest.fail("the grandchild lives on")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_budget_doubles_its_pauses_and_forgives_a_long_life() -> None:
    budget = RestartBudget(tries=3, healthy_s=300.0, first_s=0.5, longest_s=1.5)
    assert [budget.died(1.0), budget.died(1.0), budget.died(1.0), budget.died(1.0)] == [0.5, 1.0, 1.5, None]
    assert budget.died(301.0) == 0.5


def test_last_words(tmp_path: Path) -> None:
    log = tmp_path / "x.out"
    assert last_words(log) == ""
    log.write_text("noise\nrlsp: a: first\nrlsp hub-0: port 5 in use: choose another\ntrailing\n")
    assert last_words(log) == "port 5 in use: choose another"
    log.write_text("only noise\n")
    assert last_words(log) == "only noise"


def test_exit_texts() -> None:
    assert [exit_text(3), exit_text(-signal.SIGKILL)] == ["exit code 3", "signal SIGKILL"]


def test_the_environment_of_a_service() -> None:
    made = service_environment(3, {"PYTHONPATH": "/a", "HOME": "/h"}, {"CUDA_VISIBLE_DEVICES": "1,2"})
    assert (made["OMP_NUM_THREADS"], made["MKL_NUM_THREADS"], made["HOME"]) == ("3", "3", "/h")
    assert made["RLSP_SUPERVISOR_PID"] == str(os.getpid())
    assert made["PYTHONPATH"].endswith(":/a")
    assert made["CUDA_VISIBLE_DEVICES"] == "1,2"
    assert "CUDA_VISIBLE_DEVICES" not in service_environment(1, {})


async def test_a_worker_that_another_start_replaced_is_started_again_with_the_next_number(tmp_path: Path) -> None:
    mark = tmp_path / "numbers"
    path = f"pathlib.Path({str(mark)!r})"
    fenced = (
        f"import os, pathlib, sys, time; p = {path}; old = p.read_text() if p.exists() else '';"
        f"p.write_text(old + os.environ['RLSP_START'] + ' '); old or sys.exit(75); {FOREVER}"
    )
    hub = (
        "import pathlib, time\n"
        f"while not pathlib.Path({str(mark)!r}).exists() or {path}.read_text().count(' ') < 2: time.sleep(0.02)"
    )
    numbers = iter(range(1, 100))
    said: list[str] = []
    services = [service(tmp_path, "replay", hub), service(tmp_path, "sampler", fenced)]
    supervisor = Supervisor(services, said.append, budget, next_start=lambda: next(numbers))
    assert await supervisor.run(5.0) == RunEnd(0)
    first, second = (int(word) for word in mark.read_text().split())
    assert second > first
    assert any("sampler-0 ended with exit code 75; it is started again" in sentence for sentence in said)
