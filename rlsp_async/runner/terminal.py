"""What a person sees of a run: a drawing in a terminal, a plain line every ten seconds in a log.

await watch(cfg, on_status)      reads the hub's status once a second, until it is cancelled
panel(status), plain_line(status)   pure functions
LiveView                         decides which of them is shown, and when
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable
from typing import TextIO

import msgspec
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rlsp_async.config import RunConfig
from rlsp_async.contents import printable
from rlsp_async.messages import Status, WorkerStatus
from rlsp_async.report.text import count_text, seconds_text

PLAIN_EVERY_S = 10.0
LIVE_EVERY_S = 0.5
PATIENCE_S = 24 * 3600.0
"""How long `watch` waits for a hub that is being started again; the supervisor ends it earlier."""
STATES = ("issued", "sampled", "verifying", "ready", "training", "trained", "dropped")
"""States of a group, in the order in which a group passes them; other counts follow as they come."""
SHOWN_PARTS = 6
NAME = 64
"""Most characters of a name that is shown."""
PARTS = ("part_", "parts.")
"""How the name of a metric begins that is the mean of a reward part, e.g. part_correct."""
SUMMED = ("backtracks", "checks", "alternatives")
"""Reward parts that search_steps sums up; only the report shows them."""

COLOURS = {
    "working": "green",
    "loading": "cyan",
    "waiting_work": "yellow",
    "waiting_credit": "yellow",
    "draining": "magenta",
}
PHASES = {
    "running": "green",
    "evaluating": "cyan",
    "draining": "magenta",
    "finished": "bold green",
    "failed": "bold red",
}


def panel(status: Status) -> Panel:
    """The drawing of a status."""
    status = printable_status(status)
    parts: list[RenderableType] = [
        _head(status),
        _bar(status),
        _figures(status),
        _groups(status),
        _workers(status.workers),
    ]
    if status.message:
        parts.append(Text(status.message, style="yellow"))
    title = Text.assemble(("rlsp", "bold"), f" {status.run}")
    return Panel(Group(*parts), title=title, title_align="left", border_style="dim")


def printable_status(status: Status) -> Status:
    """A status without anything that a terminal would obey: names, states and messages come from peers."""
    return msgspec.structs.replace(
        status,
        run=printable(status.run),
        stage=printable(status.stage),
        phase=printable(status.phase),
        message=printable(status.message),
        counts={printable(name, NAME): num for name, num in status.counts.items()},
        tokens={printable(name, NAME): num for name, num in status.tokens.items()},
        metrics={printable(name, NAME): num for name, num in status.metrics.items()},
        workers=[
            msgspec.structs.replace(w, worker=printable(w.worker, NAME), state=printable(w.state, NAME))
            for w in status.workers
        ],
    )


def _head(status: Status) -> Text:
    text = Text()
    text.append(status.stage or "starting", style="bold")
    text.append("  ")
    text.append(status.phase, style=PHASES.get(status.phase, ""))
    text.append(f"   version {status.version}   {seconds_text(status.seconds)}")
    if status.seconds_left >= 0:
        text.append(f"   about {seconds_text(status.seconds_left)} left", style="dim")
    return text


def _bar(status: Status) -> Table:
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(ratio=1)
    grid.add_column(justify="right", no_wrap=True)
    done, total = position(status)
    grid.add_row(ProgressBar(total=max(1, total), completed=min(done, max(1, total))), _position_text(status))
    return grid


def position(status: Status) -> tuple[int, int]:
    """How far the present phase is: prompts of an evaluation, else steps of the stage; and of how many."""
    if status.to_evaluate:
        return status.evaluated, status.to_evaluate
    return status.stage_step, status.stage_steps


def _position_text(status: Status) -> str:
    done, total = position(status)
    return f"{'evaluating' if status.to_evaluate else 'step'} {done}/{total}"


def figures(status: Status) -> list[tuple[str, str]]:
    """Names and texts of the main figures: pass@1, reward and its parts, lag, speed. Absent ones are left out."""
    m = status.metrics
    shown = []
    if "pass_at_1" in m:
        shown.append(("pass@1", _percent(m["pass_at_1"])))
    if "reward" in m:
        shown.append(("reward", f"{m['reward']:.3g}"))
    parts = {name.removeprefix(PARTS[0]).removeprefix(PARTS[1]): m[name] for name in m if name.startswith(PARTS)}
    parts = {name: value for name, value in parts.items() if name not in SUMMED}
    shown += [(name.replace("_", " "), f"{value:.3g}") for name, value in list(parts.items())[:SHOWN_PARTS]]
    if "lag_mean" in m:
        worst = f" (max {m['lag_max']:.0f})" if "lag_max" in m else ""
        shown.append(("lag", f"{m['lag_mean']:.2f}{worst}"))
    for name, label in (
        ("inverted_fraction", "inverted"),
        ("loss", "loss"),
        ("kl_behaviour", "KL"),
        ("entropy", "entropy"),
        ("response_tokens", "length"),
        ("turns", "turns"),
    ):
        if name in m:
            shown.append((label, f"{m[name]:.3g}"))
    if "tokens_per_s" in m:
        shown.append(("tokens/s", count_text(m["tokens_per_s"])))
    return shown


def _figures(status: Status) -> Text:
    text = Text()
    for name, value in figures(status):
        text.append(f"{name} ", style="dim")
        text.append(f"{value}   ", style="bold")
    return text


def _groups(status: Status) -> Text:
    """The number of groups by state, in the order of STATES, and the token account."""
    names = [*(s for s in STATES if s in status.counts), *(s for s in status.counts if s not in STATES)]
    text = Text("groups  ", style="dim")
    text.append("  ".join(f"{name} {status.counts[name]}" for name in names), style="default")
    if status.tokens:
        text.append("\ntokens  ", style="dim")
        text.append("  ".join(f"{name} {count_text(n)}" for name, n in status.tokens.items()), style="default")
    return text


def _workers(workers: list[WorkerStatus]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for name, justify in (
        ("worker", "left"),
        ("state", "left"),
        ("idle", "right"),
        ("leases", "right"),
        ("version", "right"),
    ):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for w in workers:
        if w.role == "observer":
            continue
        state = f"silent {w.silent_s:.0f} s" if w.silent_s > 5 else w.state.replace("waiting_", "waiting for ")
        colour = "red" if w.silent_s > 5 else COLOURS.get(w.state, "")
        table.add_row(
            Text(w.worker),
            Text(state, style=colour),
            _percent(w.idle_share),
            f"{w.leases}/{w.credit}",
            str(w.version) if w.version >= 0 else "-",
        )
    return table


def plain_line(status: Status) -> str:
    """A line for a log: "rlsp [  75 s] rlsp running step 3/16 v1003 | pass@1 31.2 % | ... | idle sampler-0 4 %"."""
    status = printable_status(status)
    evaluated = f" {status.evaluated}/{status.to_evaluate}" if status.to_evaluate else ""
    head = (
        f"[{status.seconds:5.0f} s] {status.stage or 'starting'} {status.phase}{evaluated} step {status.stage_step}/"
        f"{status.stage_steps} v{status.version}"
    )
    shown = [f"{name} {value}" for name, value in figures(status)]
    idle = [f"{w.worker} {_percent(w.idle_share)}" for w in status.workers if w.role != "observer"]
    parts = [head, *([" ".join(shown)] if shown else []), *(["idle " + ", ".join(idle)] if idle else [])]
    if status.seconds_left >= 0:
        parts.append(f"{seconds_text(status.seconds_left)} left")
    if status.message:
        parts.append(status.message)
    return " | ".join(parts)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


class LiveView:
    """What `rlsp run` shows: `update` takes the newest Status, `say` a sentence that stays. Both are cheap."""

    def __init__(self, cfg: RunConfig, out: TextIO | None = None) -> None:
        self._console = Console(file=out or sys.stdout, highlight=False)
        self._name = cfg.name
        self.status: Status | None = None
        """The newest status; None before the first one."""
        self._shown_phase = ("", "")
        self._began = time.monotonic()
        self._live: Live | None = None
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()

    def update(self, status: Status) -> None:
        """Keeps the newest status. In a log, a new stage or phase is printed at once."""
        self.status = status
        if not self._live and self._shown_phase != (status.stage, status.phase):
            self._line()

    def say(self, text: str) -> None:
        """Prints one sentence above the drawing."""
        self._console.print(f"rlsp: {printable(text)}", style="yellow", markup=False)

    async def keep_showing(self) -> None:
        """Draws again at intervals, until it is cancelled."""
        while True:
            self._live_frame() if self._live else self._line()
            await asyncio.sleep(LIVE_EVERY_S if self._live else PLAIN_EVERY_S)

    def close(self) -> None:
        """Leaves the last drawing on the screen. Idempotent."""
        if self._live:
            self._live.stop()
            self._live = None
            if self.status:
                self._console.print(panel(self.status))
        elif self.status and self._shown_phase != (self.status.stage, self.status.phase):
            self._line()

    def _live_frame(self) -> None:
        if self._live:
            self._live.update(panel(self.status) if self.status else Text(self._waiting()), refresh=True)

    def _line(self) -> None:
        text = plain_line(self.status) if self.status else self._waiting()
        if self.status:
            self._shown_phase = (self.status.stage, self.status.phase)
        self._console.print(text, markup=False, soft_wrap=True)

    def _waiting(self) -> str:
        return f"[{time.monotonic() - self._began:5.0f} s] starting the services of {self._name}"


# --- the observer --------------------------------------------------------------------------------------------------


async def watch(cfg: RunConfig, on_status: Callable[[Status], None]) -> None:
    """Connects to the hub as an observer and hands every Status to `on_status`, until it is cancelled.

    Reconnects by itself. Any number of observers may watch a run; the run does not depend on them.
    Raises MachineError when no hub answers for a day.
    """
    from rlsp_async.service import hub_address, limits_of
    from rlsp_async.wire.keyring import read_worker_keys
    from rlsp_async.wire.link import LinkSettings, WorkerHooks, WorkerLink

    who = LinkSettings(
        run=cfg.name, role="observer", worker=f"observer-{os.getpid()}", give_up_s=PATIENCE_S, limits=limits_of(cfg)
    )
    keys = read_worker_keys(cfg.replay.keys, who.role, who.worker)
    await WorkerLink(who, lambda: hub_address(cfg), WorkerHooks(on_status=on_status), keys).run()
