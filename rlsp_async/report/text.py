"""What people read of a run's results: numbers as text, and the tables of `rlsp run` and `rlsp report`."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TextIO

from rlsp_async.contents import printable
from rlsp_async.report.results import FigureEstimate, Report, headline_figures

WIDTH = 80
"""Columns of a table; longer cells go on in the line below, between two words."""
GAP = 2
"""Blanks between two columns."""


def bytes_text(num_bytes: float) -> str:
    """A size with its unit: 1536 -> "1.5 KiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if num_bytes < 1024:
            return f"{num_bytes:.0f} B" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.1f} TiB"


def gib_text(gib: float) -> str:
    """A size in GiB: 0.53 -> "0.5 GiB"."""
    return f"{gib:.1f} GiB"


def count_text(count: float) -> str:
    """A count with three digits: 217280 -> "217 k"; 2450000 -> "2.45 M"; 960 -> "960"."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(count) >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f}"


def seconds_text(seconds: float) -> str:
    """A duration: 75 -> "1 min 15 s"; 4000 -> "1 h 06 min"; below 10 with one digit."""
    if seconds < 0:
        return "-"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def percent_text(share: float | None) -> str:
    """A share in percent: 0.583 -> "58.3 %"; None -> "-"."""
    return "-" if share is None else f"{100 * share:.1f} %"


def interval_text(interval: FigureEstimate) -> str:
    """An interval in percent: "28.1-36.0"."""
    return f"{100 * interval.low:.1f}-{100 * interval.high:.1f}"


def figure_name(name: str) -> str:
    """The name of a figure for people: pass_at_8 -> "pass@8"; response_tokens -> "response tokens"."""
    return name.replace("pass_at_", "pass@").replace("_", " ")


def figure_text(name: str, interval: FigureEstimate | None) -> str:
    """A figure of an evaluation: shares in percent with their interval, counts with one digit."""
    if interval is None:
        return "-"
    if name.startswith("pass_at_"):
        return f"{percent_text(interval.mean)} ({interval_text(interval)})"
    return percent_text(interval.mean) if name == "truncated" else f"{interval.mean:.1f}"


# --- tables --------------------------------------------------------------------------------------------------------


def print_report(report: Report, out: TextIO) -> None:
    """The tables of evaluations and stages, the token account, examples to read, and where the curves are."""
    state = "" if report.finished else ", not finished"
    print(f"\nrun {report.run}: {seconds_text(report.seconds)}, seed {report.seed}{state}\n", file=out)
    if report.evaluations:
        _table(*evaluation_table(report), out)
    _table(*stage_table(report), out)
    for name, shares in report.idle.items():
        idle = [f"{worker} {100 * share:.0f} %" for worker, share in shares.items()]
        _listed("idle", [f"in {name}:", *idle], out)
    for s in report.stages:
        if s.verification_first is not None:
            first, last = 100 * s.verification_first, 100 * (s.verification_last or 0.0)
            _listed("verify", [f"in {s.name}:", f"verifying {first:.0f} -> {last:.0f} %"], out)
    tokens = [f"{printable(name).replace('_', ' ')} {count_text(n)}" for name, n in report.tokens.items()]
    _listed("tokens", tokens, out)
    _listed("lag", [f"{lag}: {n}" for lag, n in report.lags.items()], out)
    for line in example_lines(report):
        print(line, file=out)
    for text in report.warnings:
        print(textwrap.fill(f"warning: {text}", WIDTH, break_long_words=False, break_on_hyphens=False) + "\n", file=out)
    if report.digest:
        print(f"model    {report.directory}/final   {report.digest[:23]}...", file=out)
    print(f"report   {report.directory}/report.html\n", file=out)


def example_lines(report: Report, width: int = WIDTH) -> list[str]:
    """A correct and a wrong rollout of each evaluation to read; long texts are shortened in the middle."""
    lines, shown = [], set()
    for row in report.examples:
        kind = (row.get("when"), row.get("status") == "correct")
        if kind in shown:
            continue
        shown.add(kind)
        prompt, text = (str(row.get(name, "")) for name in ("prompt", "text"))
        lines.append(
            f"{shorten(str(row.get('when', '')), 20):<7}  {shorten(str(row.get('status', '')), 40)}, "
            f"{row.get('num_tokens', 0)} tokens"
        )
        lines += [f"         {shorten(part, width - 9)}" for part in (prompt, text)]
    return ["", *lines, ""] if lines else []


def shorten(text: str, width: int) -> str:
    """One line of at most `width` characters, "a b c ... y z", without characters that a terminal would interpret."""
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    half = (width - 5) // 2
    return text if len(text) <= width else f"{text[:half]} ... {text[-half:]}"


def evaluation_table(report: Report) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the table of evaluations; 95 % intervals are in brackets."""
    shown = headline_figures(report.evaluations)
    head = ["held-out", "version", *[figure_name(name) for name in shown]]
    return head, [[e.label, str(e.version), *[figure_text(n, e.figure(n)) for n in shown]] for e in report.evaluations]


def stage_table(report: Report) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the table of stages."""
    head = ["stage", "steps", "versions", "rollouts", "tokens", "time", "lag", "reward"]
    rows = []
    for s in report.stages:
        lag = "-" if s.lag_mean is None else f"{s.lag_mean:.2f} (max {s.lag_max:.0f})"
        reward = "-" if s.reward_first is None else f"{s.reward_first:.2f} -> {s.reward_last:.2f}"
        rows.append(
            [
                s.name,
                f"{s.steps}/{s.planned_steps}",
                f"{s.first_version}-{s.last_version}",
                count_text(s.rollouts),
                count_text(s.tokens),
                seconds_text(s.seconds),
                lag,
                reward,
            ]
        )
    return head, rows


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], out: TextIO) -> None:
    """Prints a table of at most WIDTH columns, as far as its words allow. Names in it come from peers."""
    lines = [[printable(cell) for cell in line] for line in (head, *rows)]
    widths = column_widths(lines)
    for number, line in enumerate(lines):
        for part in _lines_of(line, widths):
            print(part, file=out)
        if number == 0:
            print((" " * GAP).join("-" * width for width in widths), file=out)
    print(file=out)


def column_widths(lines: Sequence[Sequence[str]], most: int = WIDTH) -> list[int]:
    """Widths of the columns of a table: that of the widest cell, or less where the table would exceed `most`.

    The widest column gives way first, and none is narrower than its longest word. The first one, the names of the rows,
    stays as it is.
    """
    columns = list(zip(*lines, strict=True))
    widths = [max(map(len, column)) for column in columns]
    least = [max((len(word) for cell in column for word in cell.split()), default=0) for column in columns]
    least[0] = widths[0]
    for _ in range(sum(widths) + GAP * (len(widths) - 1) - most):
        slack = [i for i, width in enumerate(widths) if width > least[i]]
        if not slack:
            break
        widths[max(slack, key=lambda i: widths[i])] -= 1
    return widths


def _lines_of(cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    """One row of a table as lines: each cell is wrapped between words."""
    parts = [_wrapped(cell, width) for cell, width in zip(cells, widths, strict=True)]
    rows = [[part[i] if i < len(part) else "" for part in parts] for i in range(max(map(len, parts)))]
    return [
        (" " * GAP).join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, max(1, width), break_long_words=False, break_on_hyphens=False) or [""]


def _listed(name: str, items: Sequence[str], out: TextIO) -> None:
    """A name and its items, in as many lines as they need; nothing without items."""
    line = f"{name:<9}"
    for item in items:
        if len(line) > 9 and len(line) + len(item) > WIDTH:
            print(line.rstrip(), file=out)
            line = " " * 9
        line += f"{item}   "
    if items:
        print(line.rstrip(), file=out)
