"""A hub as a process of its own, with settings for a benchmark: services/replay.py, killed at the end.

with HubProcess(directory, durability="power", rollouts=1) as hub: hub.address, hub.pid
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parent.parent
NAME = "bench"
START_S = 30.0
FOREVER = 1_000_000
"""Steps and lag: nothing in a benchmark ends or goes stale by itself."""

CONFIG = """
name = "bench"
[model.scratch]
context = 65536
[task]
name = "ops"
[stages.bench]
steps = {forever}
max_lag = {forever}
publish_every = 0
groups_per_step = {groups_per_step}
target_lag = {target_lag}
[sampling]
rollouts = {rollouts}
max_new_tokens = 16384
[replay]
durability = "{durability}"
max_message_mb = 512
timeout_s = {timeout_s}
lease_s = 600.0
stall_s = 3600.0
[evaluation]
prompts = 0
"""


class HubProcess:
    """Starts on entering, is killed on leaving; its run directory stays."""

    def __init__(
        self,
        directory: Path,
        *,
        durability: str = "power",
        rollouts: int = 1,
        groups_per_step: int = 64,
        target_lag: int = 15,
        timeout_s: float = 60.0,
        profile: Path | None = None,
    ) -> None:
        self.directory = directory / NAME
        directory.mkdir(parents=True, exist_ok=True)
        self._config = directory / "config.toml"
        self._config.write_text(
            CONFIG.format(
                forever=FOREVER,
                groups_per_step=groups_per_step,
                target_lag=target_lag,
                rollouts=rollouts,
                durability=durability,
                timeout_s=timeout_s,
            )
        )
        self._profile = profile
        self._process: subprocess.Popen[bytes]
        self.address, self.pid = "", 0

    def __enter__(self) -> HubProcess:
        service = [str(ROOT / "services" / "replay.py"), str(self._config), f"runs_dir={self.directory.parent}"]
        if self._profile is not None:
            service = [str(ROOT / "benchmarks" / "profiled.py"), str(self._profile), *service]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        with (self.directory.parent / "hub.log").open("wb") as log:
            self._process = subprocess.Popen([sys.executable, *service], env=environment, stdout=log, stderr=log)
        try:
            self._wait()
        except BaseException:
            self._process.kill()
            raise
        return self

    def _wait(self) -> None:
        deadline = time.monotonic() + START_S
        while not (self.directory / "hub.json").is_file():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the hub did not start:\n{(self.directory.parent / 'hub.log').read_text()}")
            time.sleep(0.02)
        self.address, self.pid = json.loads((self.directory / "hub.json").read_text())["address"], self._process.pid

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is not None and kind is None:
            raise SystemExit(f"the hub ended by itself:\n{(self.directory.parent / 'hub.log').read_text()}")
        self._process.kill()
        self._process.wait()
