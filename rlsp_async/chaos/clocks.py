"""The wall clocks of the processes of a run, each of which can be set by itself. Nothing of the machine changes.

    clocks = Clocks(directory)
    env = clocks.environment(os.environ)      of every process that is to have a clock of its own
    clocks.set("sampler-0", -3600.0)          an hour behind, at once and for all later starts of this name
    clocks.set("", 86400.0)                   all of them a day ahead

Each process has a file of 8 bytes, the offset in seconds, which it maps into its memory (shifted/sitecustomize.py).
What Python code reads through the module `time` is shifted. `datetime.now`, libraries in C and the times of files show
the machine's clock, and so the two disagree, as after a step that a process has not noticed yet. This package itself
reads the wall clock through `time` alone (tests/test_clocks.py).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from pathlib import Path

from rlsp_async.chaos.faults import TARGETS
from rlsp_async.chaos.shifted import sitecustomize

SHIFTED = Path(sitecustomize.__file__).parent


class Clocks:
    """The offsets of all processes of one run."""

    def __init__(self, directory: Path) -> None:
        """Takes an empty directory for the files."""
        self._directory = directory
        for name in TARGETS:
            self._write(name, 0.0)

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """The environment in which a process and all that it starts have these clocks."""
        paths = [str(SHIFTED), *filter(None, base.get("PYTHONPATH", "").split(os.pathsep))]
        return {**base, "PYTHONPATH": os.pathsep.join(paths), sitecustomize.DIRECTORY: str(self._directory)}

    def set(self, name: str, offset_s: float) -> None:
        """Sets the clock of one process, or of all (""), to the machine's time plus `offset_s`."""
        for one in [name] if name else sorted(path.name for path in self._directory.iterdir()):
            self._write(one, offset_s)

    def _write(self, name: str, offset_s: float) -> None:
        """In place: a process that has mapped the file must never find it shorter."""
        file = os.open(self._directory / name, os.O_WRONLY | os.O_CREAT)
        try:
            os.pwrite(file, struct.pack("<d", offset_s), 0)
        finally:
            os.close(file)
