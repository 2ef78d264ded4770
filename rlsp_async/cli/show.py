"""What the commands print: the results of a run, an evaluation. One table each.

A terminal gets colours, a pipe plain text; `--json` gives the same facts to programs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import msgspec

from rlsp_async.cli.tasks import task_of
from rlsp_async.errors import ConfigError, DataError
from rlsp_async.report.report import Report, build_report, load_report, write_report
from rlsp_async.report.rows import headline_figures
from rlsp_async.report.text import count_text, figure_name, figure_text, seconds_text


def show_run(directory: Path, note: str = "", out: TextIO | None = None) -> int:
    """The table of results of a run whose report is written, and where the curves are."""
    report = load_report(directory)
    if report is None:
        raise DataError(f"{directory}: no report.json; `rlsp report {directory}` makes it")
    _print_report(report, out or sys.stdout)
    if note:
        print(f"{directory}: {note}", file=out or sys.stdout)
    return 0


def show_report(directory: Path, *, as_json: bool, out: TextIO | None = None) -> int:
    """`rlsp report RUN`: read anew from the run's files, so it also works while the run goes on. Raises DataError."""
    out = out or sys.stdout
    old = load_report(directory) if (directory / "report.json").is_file() else None
    report = build_report(directory, finished=old is not None and old.finished)
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(report)).decode(), file=out)
        return 0
    write_report(directory, finished=report.finished)
    _print_report(report, out)
    return 0


def _print_report(report: Report, out: TextIO) -> None:
    state = "" if report.finished else ", not finished"
    print(f"\nrun {report.run}: {seconds_text(report.seconds)}, seed {report.seed}{state}\n", file=out)
    if report.evaluations:
        _table(*evaluation_table(report), out)
    _table(*stage_table(report), out)
    if report.tokens:
        print(
            "tokens   " + "   ".join(f"{name.replace('_', ' ')} {count_text(n)}" for name, n in report.tokens.items()),
            file=out,
        )
    if report.lags:
        print("lag      " + "   ".join(f"{lag}: {n}" for lag, n in report.lags.items()), file=out)
    for line in example_lines(report):
        print(line, file=out)
    if report.digest:
        print(f"model    {report.directory}/final   {report.digest[:23]}...", file=out)
    print(f"report   {report.directory}/report.html\n", file=out)


def example_lines(report: Report, width: int = 96) -> list[str]:
    """A right and a wrong rollout of each evaluation to read; the middle of a long one is left out."""
    lines, shown = [], set()
    for row in report.examples:
        kind = (row.get("when"), row.get("status") == "correct")
        if kind in shown:
            continue
        shown.add(kind)
        prompt, text = (str(row.get(name, "")) for name in ("prompt", "text"))
        lines.append(
            f"{row.get('when', ''):<7}  {row.get('status', '')}, {row.get('num_tokens', 0)} tokens: "
            f"{shortened(prompt, width // 2)} | {shortened(text, width)}"
        )
    return ["", *lines, ""] if lines else []


def shortened(text: str, width: int) -> str:
    """One line of at most `width` characters, "a b c ... y z"; what a model wrote must not command the terminal."""
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    half = (width - 5) // 2
    return text if len(text) <= width else f"{text[:half]} ... {text[-half:]}"


def evaluation_table(report: Report) -> tuple[list[str], list[list[str]]]:
    """Held-out figures, one row an evaluation, 95 % intervals in brackets."""
    shown = headline_figures(report.evaluations)
    head = ["held-out", "version", *[figure_name(name) for name in shown]]
    return head, [
        [f"{e.when} {e.stage}", str(e.version), *[figure_text(n, e.figure(n)) for n in shown]]
        for e in report.evaluations
    ]


def stage_table(report: Report) -> tuple[list[str], list[list[str]]]:
    """One row a stage."""
    head = ["stage", "steps", "versions", "rollouts", "tokens", "time", "lag", "reward", "idle"]
    rows = []
    for s in report.stages:
        lag = "-" if s.lag_mean is None else f"{s.lag_mean:.2f} (max {s.lag_max:.0f})"
        reward = "-" if s.reward_first is None else f"{s.reward_first:.2f} -> {s.reward_last:.2f}"
        idle = ", ".join(f"{name} {100 * share:.0f} %" for name, share in report.idle.get(s.name, {}).items())
        if s.verification_first is not None:
            reward += f", verifying {100 * s.verification_first:.0f} -> {100 * (s.verification_last or 0.0):.0f} %"
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
                idle,
            ]
        )
    return head, rows


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], out: TextIO) -> None:
    """Columns as wide as they need; the last one is never cut."""
    widths = [max(len(line[i]) for line in (head, *rows)) for i in range(len(head))]
    for number, line in enumerate((head, *rows)):
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip(), file=out)
        if number == 0:
            print("  ".join("-" * width for width in widths), file=out)
    print(file=out)


# --- evaluation ----------------------------------------------------------------------------------------------------


def show_evaluation(arguments: argparse.Namespace, out: TextIO | None = None) -> int:
    """`rlsp eval MODEL --task T`: the table, or with --json one object."""
    from rlsp_async.evaluate import evaluate

    section, _ = task_of(arguments.task)
    if arguments.n < 1 or arguments.prompts < 1:
        raise ConfigError("-n and --prompts must be at least 1")
    result = evaluate(
        Path(arguments.model),
        section,
        rollouts=arguments.n,
        prompts=arguments.prompts,
        engine=arguments.engine,
        max_new_tokens=arguments.max_new_tokens,
        temperature=arguments.temperature,
        seed=arguments.seed,
    )
    print(msgspec.json.encode(result).decode() if arguments.json else result, file=out or sys.stdout)
    return 0
