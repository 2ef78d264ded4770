"""The run's jsonl files, one writer each: metrics, rollouts, timeline, evaluations."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rlsp_async.observe.jsonl import JsonlWriter
from rlsp_async.replay.state import File, Line

FILES: tuple[File, ...] = ("metrics", "rollouts", "timeline", "evaluations")


class Recorder:
    """Blocking. A line is written after the commit that it tells of: a crash may lose it, never invents it."""

    def __init__(self, directory: Path) -> None:
        self._writers = {name: JsonlWriter(directory / f"{name}.jsonl") for name in FILES}

    def write(self, lines: Iterable[Line]) -> None:
        """Appends rows in order. Raises MachineError when the disk refuses."""
        for line in lines:
            self._writers[line.file].write(line.row)

    def close(self) -> None:
        """Idempotent."""
        for writer in self._writers.values():
            writer.close()
