"""A line over two machines, as docs/operations.md says it, step by step. The second machine is a fresh directory here; the
hub listens on an address of this machine that is not loopback, where everything is encrypted and every key is asked for."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
SMOKE = ROOT / "launch" / "configs" / "ops_cpu_smoke.toml"
RLSP = [sys.executable, "-m", "rlsp_async.cli"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def outside_address() -> str:
    """An IPv4 address of this machine that others could reach."""
    found = [
        address.address
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
        if address.family == socket.AF_INET and not address.address.startswith("127.")
    ]
    if not found:
        pytest.skip("this machine has no address but loopback")
    return found[0]


def free_port(host: str) -> int:
    with socket.socket() as trial:
        trial.bind((host, 0))
        return int(trial.getsockname()[1])


@pytest.mark.flow
@pytest.mark.timeout(240)
def test_a_sampler_and_a_verifier_join_with_their_keys_and_one_without_is_not_heard(tmp_path: Path) -> None:
    host = outside_address()
    first, second = tmp_path / "first", tmp_path / "second"
    address = f"tcp://{host}:{free_port(host)}"
    first.mkdir()
    for files in ("keys", "runs/ops_cpu_smoke"):
        (second / files).mkdir(parents=True)
    subprocess.run([*RLSP, "keys", "new", "keys"], cwd=first, env=ENVIRONMENT, check=True, timeout=60)
    run = start(
        first,
        "run",
        str(SMOKE),
        f"replay.address={address}",
        "replay.keys=keys",
        "sampler.count=0",
        "verifier.count=0",
    )
    others = []
    try:
        wait_for(lambda: (first / "runs/ops_cpu_smoke/hub.json").exists(), 90.0)
        for name in ("hub.public", "sampler.secret", "verifier.secret"):
            shutil.copy2(first / "keys" / name, second / "keys")
        shutil.copy2(first / "runs/ops_cpu_smoke/config.toml", second)
        shutil.copytree(first / "runs/ops_cpu_smoke/model", second / "runs/ops_cpu_smoke/model")
        others.append(join(second, "verifier", "stranger-0", "replay.keys="))
        others.append(join(second, "verifier", "verifier-9", "replay.keys=keys"))
        others.append(join(second, "sampler", "sampler-9", "replay.keys=keys"))
        assert run.wait(timeout=150) == 0, (first / "out.txt").read_text()
        assert [other.wait(timeout=30) for other in others[1:]] == [0, 0]
        assert others[0].poll() is None, "not let in, it waits for a hub of its own"
    finally:
        for process in (*others, run):
            process.kill()
            process.wait()
    said = [json.loads(line) for line in (second / "runs/ops_cpu_smoke/logs/stranger-0.jsonl").read_text().splitlines()]
    assert "welcome" not in {line["event"] for line in said}
    lines = (second / "runs/ops_cpu_smoke/logs/sampler-9.jsonl").read_text().splitlines()
    [way] = [line for line in map(json.loads, lines) if line["event"] == "weights come"]
    assert way["how"] == "channel of kind gloo" and "in the shared memory of another machine" in way["reason"]
    met = [json.loads(line) for line in (first / "runs/ops_cpu_smoke/logs/learner-0.jsonl").read_text().splitlines()]
    assert [line["address"] for line in met if line["event"] == "channels meet"] == [host]
    status = json.loads((first / "runs/ops_cpu_smoke/status.json").read_text())
    assert {worker["worker"] for worker in status["workers"]} <= {"learner-0", "sampler-9", "verifier-9"}
    logs = b"".join(
        path.read_bytes()
        for path in tmp_path.rglob("*")
        if path.is_file() and path.suffix in (".jsonl", ".out", ".txt", ".toml", ".html")
    )
    secrets = [path.read_bytes().strip() for path in (first / "keys").glob("*.secret")]
    assert len(secrets) == 5 and not [secret for secret in secrets if secret in logs]


def start(directory: Path, *words: str) -> subprocess.Popen[bytes]:
    with open(directory / "out.txt", "ab") as out:
        env = ENVIRONMENT | {"RLSP_HOST_ID": directory.name}
        return subprocess.Popen([*RLSP, *words], cwd=directory, env=env, stdout=out, stderr=out)


def join(directory: Path, role: str, worker: str, keys: str) -> subprocess.Popen[bytes]:
    """A worker of the second machine, which sees no file of the first one."""
    return start(directory, role, "config.toml", "runs_dir=runs", keys, "--worker", worker)


def wait_for(condition: Callable[[], bool], bound_s: float) -> None:
    deadline = time.monotonic() + bound_s
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.1)
