"""The benchmark of the lanes runs, and its arms agree on what is right."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_arm_gives_a_rate() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "lanes.py"), "--answers", "60", "--fresh", "1", "--repeats", "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split("|")[1].strip() for line in done.stdout.splitlines()[2:]]
    assert rows == ["fast lane", "math-verify in the process", "isolated lane", "math-verify, a fresh process each"]
