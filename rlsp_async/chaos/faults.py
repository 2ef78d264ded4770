"""Which faults are injected, and when: a seeded schedule with Poisson arrivals. Pure.

    schedule(seed=0, minutes=5.0, kinds=("kill", "drop"), per_minute=12.0) -> [ScheduledFault, ...] in order of time

Kinds: kill (SIGKILL of one process), stop (SIGSTOP, later SIGCONT), restart-all (everything at once, the supervisor
included), enospc (the disk is filled, later freed); and time windows in which the proxy affects messages: drop,
duplicate, reorder (a share of the messages) and slow (all of them late). clock sets the wall clock of one process or of
all (clocks.py), corrupt damages files (damage.py), byzantine has a peer lie to the hub (liar.py).
transfer kills or stops one process while weights are on their way over a channel.
"""

from __future__ import annotations

from random import Random

import msgspec

from rlsp_async.errors import ConfigError

WIRE_KINDS = ("slow", "drop", "duplicate", "reorder")
ALWAYS = ("kill", "stop", *WIRE_KINDS, "clock", "corrupt", "byzantine")
"""The default: what every machine lets us do, and what every run must pass."""
KINDS = (*ALWAYS, "enospc", "restart-all", "transfer")
WEIGHTS = {
    "kill": 8.0,
    "stop": 3.0,
    "slow": 1.0,
    "drop": 1.0,
    "duplicate": 1.0,
    "reorder": 1.0,
    "enospc": 0.3,
    "restart-all": 0.5,
    "clock": 1.0,
    "corrupt": 1.0,
    "byzantine": 1.0,
    "transfer": 8.0,
}
"""Relative rates."""
TARGETS = {"replay-0": 2.0, "learner-0": 2.0, "sampler-0": 3.0, "verifier-0": 3.0, "supervisor": 0.5}
"""Relative rates of the processes that are killed or stopped. The supervisor is never stopped, only killed."""


OFFSETS_S = {"1 h back": -3600.0, "1 h ahead": 3600.0, "1 d back": -86400.0, "1 d ahead": 86400.0, "right": 0.0}
"""What a wall clock is set to, relative to that of the machine."""
CORRUPTED = {"weights": 1.0, "checkpoint": 1.0, "notes": 1.0, "journal": 1.0}
"""Relative rates of what is damaged (damage.py)."""
HOW = ("flip", "cut", "empty", "remove")
TRANSFERS = {"learner-0": 1.0, "sampler-0": 1.0, "replay-0": 1.0}
"""Relative rates of the processes that are killed or stopped during a transfer."""
LIES = ("work", "leases", "names", "frames")
"""What a lying peer does (liar.py)."""


class ScheduledFault(msgspec.Struct, frozen=True, kw_only=True):
    """One fault of the schedule. Example: ScheduledFault(at_s=12.5, kind="stop", target="sampler-0", seconds=4)."""

    at_s: float
    """Seconds after the first trained step."""
    kind: str
    target: str = ""
    """The name of a process, for kill and stop."""
    seconds: float = 0.0
    """How long it lasts, for stop, enospc, byzantine and the windows of the proxy."""
    what: str = ""
    """clock: one of OFFSETS_S; corrupt: one of CORRUPTED, a blank, one of HOW; byzantine: one of LIES; transfer: kill,
    stop."""
    is_fatal: bool = False
    """clock: the process is killed after it, so that it starts with the new time."""


class InjectedFault(msgspec.Struct, kw_only=True):
    """A fault of the schedule that was carried out, or could not be."""

    fault: ScheduledFault
    wall_s: float
    """Seconds since 1970."""
    outcome: str = "done"
    """done, or "skipped: " and why."""
    back_s: float = -1.0
    """kill: seconds until the service was at work again (joined the hub; the hub: started); -1: not in the journal."""
    step_s: float = -1.0
    """Seconds until the next step was trained; -1: there was none."""
    monotonic_s: float = -1.0
    """The same moment on the machine's monotonic clock, which the run's clock follows."""
    found: str = ""
    """corrupt, byzantine: what the run did."""
    wrong: str = ""
    """What must not have happened, and did; the run has then failed."""


def parse_kinds(text: str) -> tuple[str, ...]:
    """Splits "kill,stop" into kinds of faults. Raises ConfigError for an unknown one."""
    kinds = tuple(dict.fromkeys(kind.strip() for kind in text.split(",") if kind.strip()))
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds:
        raise ConfigError(
            f"--faults {text!r}: {', '.join(unknown) or 'nothing'} is not a kind of fault; there are {', '.join(KINDS)}"
        )
    return kinds


def schedule(
    seed: int, minutes: float, kinds: tuple[str, ...], per_minute: float, timeout_s: float
) -> list[ScheduledFault]:
    """Draws independent Poisson streams of faults, one stream for each kind.

    Args:
        seed: decides the schedule; a kind that is left out does not move the faults of the others.
        minutes: length of the schedule.
        kinds: some of KINDS.
        per_minute: mean number of faults in a minute, over all kinds.
        timeout_s: `replay.timeout_s`; a stop lasts 0.3 to 2.5 times as long.

    Returns: the faults in the order of their times.
    """
    weight = sum(WEIGHTS[kind] for kind in kinds)
    faults: list[ScheduledFault] = []
    for kind in kinds:
        random = Random(f"{seed}/{kind}")
        rate_s = per_minute / 60.0 * WEIGHTS[kind] / weight
        at_s = random.expovariate(rate_s)
        while at_s < 60.0 * minutes:
            faults.append(_fault(random, kind, at_s, timeout_s))
            at_s += random.expovariate(rate_s)
    return sorted(faults, key=lambda fault: fault.at_s)


def _fault(random: Random, kind: str, at_s: float, timeout_s: float) -> ScheduledFault:
    match kind:
        case "kill":
            return ScheduledFault(at_s=at_s, kind=kind, target=_target(random, tuple(TARGETS)))
        case "stop":
            seconds = random.uniform(0.3, 2.5) * timeout_s
            return ScheduledFault(at_s=at_s, kind=kind, target=_target(random, tuple(TARGETS)[:-1]), seconds=seconds)
        case "transfer":
            target = random.choices(tuple(TRANSFERS), tuple(TRANSFERS.values()))[0]
            what, seconds = random.choice(("kill", "stop")), random.uniform(0.3, 2.5) * timeout_s
            seconds = seconds if what == "stop" else 0.0
            return ScheduledFault(at_s=at_s, kind=kind, target=target, seconds=seconds, what=what)
        case "restart-all":
            return ScheduledFault(at_s=at_s, kind=kind)
        case "clock":
            target = random.choice(("", *TARGETS))
            what, is_fatal = random.choice(tuple(OFFSETS_S)), bool(target) and random.random() < 0.5
            return ScheduledFault(at_s=at_s, kind=kind, target=target, what=what, is_fatal=is_fatal)
        case "corrupt":
            [what] = random.choices(tuple(CORRUPTED), tuple(CORRUPTED.values()))
            return ScheduledFault(at_s=at_s, kind=kind, what=f"{what} {random.choice(HOW)}")
        case "byzantine":
            seconds = random.uniform(2.0, 8.0)
            return ScheduledFault(at_s=at_s, kind=kind, seconds=seconds, what=random.choice(LIES))
        case _:
            return ScheduledFault(at_s=at_s, kind=kind, seconds=random.uniform(2.0, 8.0))


def _target(random: Random, names: tuple[str, ...]) -> str:
    return random.choices(names, [TARGETS[name] for name in names])[0]
