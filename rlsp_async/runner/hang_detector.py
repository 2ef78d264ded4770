"""Which service of a run is frozen: alive for the kernel, silent for the hub. Pure; time is an argument, in seconds.

    vigil.started("sampler-0", now)     its process began; nothing is expected of it before the hub has known it
    vigil.seen(status, now)             the hub speaks, and names the workers that it hears
    vigil.frozen(now)                   who was heard since its start, and is not any more

A process that hangs (SIGSTOP, a dead loop, a stuck driver) never ends by itself, so nobody would start it again.
"""

from __future__ import annotations

import msgspec

from rlsp_async.messages import Status

ASLEEP_S = 5.0
"""Between two looks; a longer pause means that the watcher itself did not run, and everybody is forgiven."""


class _Life(msgspec.Struct):
    heard_s: float | None = None
    """Last time the hub named it (of the hub: said anything); None: not since this start."""
    step: int = 0
    """Newest step when it was first heard."""
    worked: bool = False
    """A step was trained while the hub heard it."""


class Vigil:
    """`bound_s`: how long a service that was heard may be silent."""

    def __init__(self, hub: str, bound_s: float) -> None:
        self._hub, self._bound_s = hub, bound_s
        self._lives: dict[str, _Life] = {}
        self._looked_s: float | None = None

    def started(self, name: str) -> None:
        """A new process."""
        self._lives[name] = _Life()

    def ended(self, name: str) -> bool:
        """The process is gone; whether it had worked: the run trained a step while it was there."""
        return self._lives.pop(name, _Life()).worked

    def seen(self, status: Status, now: float) -> None:
        """The hub lives, and hears these workers."""
        for name in [self._hub, *(worker.worker for worker in status.workers)]:
            life = self._lives.get(name)
            if life is None:
                continue
            if life.heard_s is None:
                life.step = status.step
            life.heard_s = now
            life.worked = life.worked or status.step > life.step

    def frozen(self, now: float) -> list[tuple[str, float]]:
        """(name, seconds of silence) of services to be killed. While the hub is silent only the hub can be blamed."""
        if self._looked_s is not None and now - self._looked_s > ASLEEP_S:
            for life in self._lives.values():
                life.heard_s = None if life.heard_s is None else now
        self._looked_s = now
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
