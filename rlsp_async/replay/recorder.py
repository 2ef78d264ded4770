"""The run's jsonl files, one writer each: metrics, rollouts, timeline, evaluations.

Timeline and rollouts grow with every group, so they are bounded: at FILE_BYTES the file replaces NAME.old.jsonl, and a
new one begins. Metrics and evaluations have one row a step or evaluation and stay whole.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from rlsp_async.errors import unwritable
from rlsp_async.jsonl import JsonlWriter
from rlsp_async.replay.state import MetricFile, MetricRow

FILES: tuple[MetricFile, ...] = ("metrics", "rollouts", "timeline", "evaluations")
BOUNDED: frozenset[MetricFile] = frozenset({"rollouts", "timeline"})
FILE_BYTES = 64 << 20
LINES_A_LOOK = 256
"""So many lines of a bounded file are written between two looks at its size."""


class MetricLog:
    """Blocking. A line is written after the commit that it tells of: a crash may lose it, never invents it."""

    def __init__(self, directory: Path) -> None:
        self._writers = {name: JsonlWriter(directory / f"{name}.jsonl") for name in FILES}
        self._num_lines = dict.fromkeys(FILES, 0)

    def write(self, lines: Iterable[MetricRow]) -> None:
        """Appends rows in order. Raises MachineError when the disk refuses."""
        for line in lines:
            self._writers[line.file].write(line.row)
            self._num_lines[line.file] += 1
            if line.file in BOUNDED and self._num_lines[line.file] % LINES_A_LOOK == 0:
                self._bound(line.file)

    def _bound(self, name: MetricFile) -> None:
        path = self._writers[name].path
        try:
            if path.stat().st_size < FILE_BYTES:
                return
            self._writers[name].close()
            os.replace(path, path.with_suffix(".old.jsonl"))
        except OSError as e:
            raise unwritable(path, e) from None
        self._writers[name] = JsonlWriter(path)

    def close(self) -> None:
        """Idempotent."""
        for writer in self._writers.values():
            writer.close()
