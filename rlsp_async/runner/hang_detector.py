"""Which service of a run hangs: alive for the kernel, silent for the hub. Pure; time is an argument, in seconds.

    detector.started("sampler-0")      its process began; nothing is expected of it before the hub has heard it
    detector.seen(status, now)         the hub speaks, and names the workers that it hears
    detector.hanging(now)              who was heard since its start, and has been silent for too long

A process that hangs (SIGSTOP, an endless loop, a blocked driver) never ends by itself, so the supervisor kills it, and
starts it again like one that died.
"""

from __future__ import annotations

import msgspec

from rlsp_async.messages import Status

ASLEEP_S = 5.0
"""If this long passes between two checks, the supervisor itself was suspended; all silence timers are reset."""


class _Life(msgspec.Struct):
    """What is known of one process."""

    heard_s: float | None = None
    """The last time at which the hub named it (for the hub: said anything); None: not since this start."""
    step: int = 0
    """The newest step when the process was first heard."""
    worked: bool = False
    """Whether a step was trained while the hub heard the process."""


class HangDetector:
    """The silence timers of the services of one run."""

    def __init__(self, hub: str, bound_s: float) -> None:
        """`hub` is the name of the hub's process; `bound_s`: how long a service that was heard may be silent."""
        self._hub, self._bound_s = hub, bound_s
        self._lives: dict[str, _Life] = {}
        self._checked_s: float | None = None

    def started(self, name: str) -> None:
        """A new process of this name began."""
        self._lives[name] = _Life()

    def was_heard(self, name: str) -> bool:
        """Whether the hub has named the present process of this name (for the hub: whether it said anything)."""
        return self._lives.get(name, _Life()).heard_s is not None

    def ended(self, name: str) -> bool:
        """The process ended. Returns whether it had worked: whether a step was trained while the hub heard it."""
        return self._lives.pop(name, _Life()).worked

    def seen(self, status: Status, now: float) -> None:
        """A status came: the hub is alive, and hears the workers that the status names."""
        for name in [self._hub, *(worker.worker for worker in status.workers)]:
            life = self._lives.get(name)
            if life is None:
                continue
            if life.heard_s is None:
                life.step = status.step
            life.heard_s = now
            life.worked = life.worked or status.step > life.step

    def hanging(self, now: float) -> list[tuple[str, float]]:
        """The services to kill, as (name, seconds of silence).

        While the hub is silent, nothing is known of the others, and only the hub can be found to hang.
        """
        if self._checked_s is not None and now - self._checked_s > ASLEEP_S:
            for life in self._lives.values():
                life.heard_s = None if life.heard_s is None else now
        self._checked_s = now
        hub = self._silent_s(self._hub, now)
        if hub > self._bound_s:
            return [(self._hub, hub)]
        if hub > self._bound_s / 4:
            return []
        return [
            (name, silent_s)
            for name in self._lives
            if (silent_s := self._silent_s(name, now)) > self._bound_s and name != self._hub
        ]

    def _silent_s(self, name: str, now: float) -> float:
        life = self._lives.get(name)
        return 0.0 if life is None or life.heard_s is None else now - life.heard_s
