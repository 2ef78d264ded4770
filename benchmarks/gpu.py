"""`rlsp selftest --gpu` with its results kept: the entry of benchmarks/gpu.sh.

    python benchmarks/gpu.py [--out DIR] [--device cpu] [--steps A,B] [--list] [--minutes N]

The steps themselves are in rlsp_async/selftest. Exit codes as `rlsp selftest`: 2 when a step failed.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from rlsp_async.cli import main as rlsp


def words(arguments: argparse.Namespace, rest: list[str], environment: Mapping[str, str]) -> list[str]:
    """The words of the `rlsp` command."""
    directory = arguments.out or (str(Path(environment["OUT"]) / "gpu") if environment.get("OUT") else "")
    directory = directory or f"gpu-{time.strftime('%Y%m%d-%H%M%S')}"
    return ["selftest", "--gpu", "--dir", directory, *rest]


def main(argv: list[str]) -> int:
    """Runs the steps; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="", metavar="DIR", help="a new directory for logs and selftest.json")
    return rlsp(words(*parser.parse_known_args(argv), os.environ))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
