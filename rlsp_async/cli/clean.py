"""`rlsp clean [RUNS_DIR]`: what runs that are over left in shared memory; with --yes it is removed."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from pathlib import Path
from typing import TextIO

from rlsp_async.cli.arguments import Commands
from rlsp_async.contents import printable
from rlsp_async.errors import MachineError
from rlsp_async.files import SHARED_MEMORY
from rlsp_async.report.text import bytes_text
from rlsp_async.weights.leftovers import find_leftovers


def add_parser(commands: Commands) -> None:
    """The arguments of `rlsp clean`."""
    parser = commands.add_parser(
        "clean", help="list, and with --yes remove, what runs left in shared memory (/dev/shm)"
    )
    parser.add_argument(
        "runs_dir", metavar="RUNS_DIR", nargs="?", default="runs", help="directory of runs (%(default)s)"
    )
    parser.add_argument("--yes", action="store_true", help="remove what no run uses; without it nothing is changed")
    parser.set_defaults(function=clean_command)


def clean_command(arguments: argparse.Namespace) -> int:
    """Lists, and removes with --yes. Raises MachineError when a directory cannot be removed."""
    return clean(Path(arguments.runs_dir), remove=arguments.yes, now=time.time())


def clean(
    runs_dir: Path, *, remove: bool, now: float, shared_memory: Path = SHARED_MEMORY, out: TextIO | None = None
) -> int:
    """One line for each directory of published versions in shared memory; returns the exit code 0."""
    out = out or sys.stdout
    found = find_leftovers(runs_dir.expanduser().resolve(), now, shared_memory)
    freed = left = 0
    for one in found:
        verb = "in use" if one.in_use else "removed" if remove else "left over"
        if remove and not one.in_use:
            try:
                shutil.rmtree(one.path)
            except OSError as e:
                raise MachineError(f"{one.path}: cannot be removed: {e.strerror}; is it another user's?") from None
        freed, left = freed + (0 if one.in_use else one.num_bytes), left + (not one.in_use)
        line = f"{verb:<9} {bytes_text(one.num_bytes):>9}  {one.path}  ({one.run or 'run unknown'}: {one.state})"
        print(printable(line, longest=len(line)), file=out)
    if not left:
        print(f"{shared_memory}: nothing is left over ({len(found)} in use)", file=out)
    elif remove:
        print(f"{bytes_text(freed)} of memory are free again", file=out)
    else:
        print(f"{bytes_text(freed)} of memory in {left} directories; rlsp clean --yes removes them", file=out)
    return 0
