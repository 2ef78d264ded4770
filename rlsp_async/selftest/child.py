"""The process of one trial: `python -m rlsp_async.selftest.child STEP DEVICE DIRECTORY FINDINGS`.

Each finding is one line of JSON, written as soon as it is there. An error ends the trial and is its last finding; its
traceback goes to standard error. A trial whose parent dies is killed.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from rlsp_async.contents import printable
from rlsp_async.processes import kill_with_parent
from rlsp_async.selftest.trials import TrialNote, TrialSite, find_step


def function_of(name: str) -> Callable[[TrialSite], Iterator[TrialNote]]:
    """The function of a step."""
    module, _, function = find_step(name).function.partition(":")
    found: Callable[[TrialSite], Iterator[TrialNote]] = getattr(
        importlib.import_module(f"rlsp_async.selftest.{module}"), function
    )
    return found


def main(name: str, device: str, directory: str, findings: str) -> None:
    """Runs one step and writes what it finds."""
    with open(findings, "ab", buffering=0) as file:
        for finding in guarded(function_of(name), TrialSite(device=device, directory=Path(directory))):
            file.write(msgspec.json.encode(finding) + b"\n")


def guarded(function: Callable[[TrialSite], Iterator[TrialNote]], site: TrialSite) -> Iterator[TrialNote]:
    """The findings of a trial; an error that ends it is the last one."""
    try:
        yield from function(site)
    except Exception as e:  # noqa: BLE001  reported: a trial looks for faults of any kind
        traceback.print_exc()
        words = str(e).strip().split("\n")[0] or "no message"
        yield TrialNote(text=printable(f"{type(e).__name__}: {words}"), ok=False)


if __name__ == "__main__":
    kill_with_parent(os.getppid())
    main(*sys.argv[1:])
