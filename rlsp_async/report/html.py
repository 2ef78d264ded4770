"""report.html: one self-contained page without scripts, from a Report and the run's files."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from rlsp_async.config import RunConfig
from rlsp_async.report import svg
from rlsp_async.report.results import (
    PART,
    EvaluationRow,
    Report,
    Row,
    Span,
    headline_figures,
    read_config,
    read_spans,
    read_steps,
    spans_by_worker,
    stage_windows,
)
from rlsp_async.report.text import count_text, figure_name, figure_text, interval_text, percent_text, seconds_text

ALWAYS_SHOWN = ("issued", "trained", "dropped", "alive")
"""States of groups that are shown also when their number is 0."""
STYLE = Path(__file__).with_name("report.css")

CHARTS: list[tuple[str, list[str]]] = [
    ("loss", ["loss", "policy_loss", "value_loss"]),
    ("response length, tokens", ["response_tokens"]),
    ("turns of a rollout with an environment", ["turns"]),
    ("share of rollouts by how their environment ended them", ["ended_done", "ended_max_turns", "ended_max_tokens"]),
    ("search steps", ["part_search_steps", "part_backtracks", "part_checks", "part_alternatives"]),
    ("verifying beside solving, share right", ["verification_balanced", "verification_accuracy", "solved"]),
    ("share of pairs in which the wrong answer is paid more", ["inverted_fraction"]),
    ("lag, versions", ["lag_mean", "lag_max"]),
    ("KL to the policy that sampled", ["kl_behaviour", "kl_penalty"]),
    ("entropy, nats", ["entropy"]),
    ("temperature of the batch", ["temperature_mean", "temperature_min", "temperature_max"]),
    ("gradient norm", ["grad_norm"]),
    ("tokens a second", ["tokens_per_s"]),
]
"""Title of a chart and its metrics. A chart appears in a stage whose steps have one of the metrics."""

FAMILIES = [("balance score of each temperature", "temperature_score_"), ("share with a fault", "penalty_")]
"""Title of a chart, and how the names of its metrics begin."""

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""Content security policy of the page: a browser runs and loads nothing, should a text ever get past `escape`."""

SAMPLED_ONLY = ("lag, versions", "KL to the policy that sampled")
"""Titles of charts without a meaning for demonstrations, which no policy sampled."""


def page(report: Report, directory: Path) -> str:
    """The whole document."""
    cfg = read_config(directory)
    spans = read_spans(directory)
    rows = read_steps(directory)
    sections = [
        _header(report, cfg),
        _evaluations(report.evaluations),
        _stages(report),
        *_curves(rows, cfg),
        _timelines(report, rows, spans, cfg),
        _accounts(report),
        _examples(report.examples),
        f"<section><h2>Settings</h2><details><summary>{escape(str(directory / 'config.toml'))}</summary><pre>"
        f"{escape((directory / 'config.toml').read_text(encoding='utf-8'))}</pre></details></section>",
    ]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" '
        f'content="{POLICY}"><title>rlsp: {escape(report.run)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE.read_text(encoding="utf-8")}</style></head>'
        f"<body><main>{''.join(sections)}</main></body></html>\n"
    )


def _header(report: Report, cfg: RunConfig) -> str:
    state = "finished" if report.finished else "not finished"
    gain = _gain(report.evaluations)
    model = cfg.model.path or "scratch"
    facts = (
        f"task {cfg.task.name} &middot; model {escape(model)} &middot; engine {cfg.sampler.engine} &middot; seed "
        f"{report.seed} &middot; {seconds_text(report.seconds)} &middot; {report.versions} versions &middot; {state}"
    )
    warnings = "".join(f"<p><strong>{escape(text)}</strong></p>" for text in report.warnings)
    return f"<header><h1>{escape(report.run)}</h1><p>{facts}</p>{gain}{warnings}</header>"


def _gain(evaluations: list[EvaluationRow]) -> str:
    """The headline: pass@1 before and after."""
    if len(evaluations) < 2:
        return ""
    first, last = evaluations[0], evaluations[-1]
    a, b = first.figure("pass_at_1"), last.figure("pass_at_1")
    if a is None or b is None:
        return ""
    return (
        f'<p class="headline"><b>{percent_text(a.mean)}</b> &rarr; <b>{percent_text(b.mean)}</b> <span>'
        "held-out pass@1, "
        f"{last.prompts} prompts x {last.rollouts} rollouts, 95 % intervals {interval_text(a)} and {interval_text(b)}"
        "</span></p>"
    )


def _evaluations(evaluations: list[EvaluationRow]) -> str:
    if not evaluations:
        return ""
    k = evaluations[0].k
    names = headline_figures(evaluations)
    head = ["evaluation", "version", *[figure_name(name) for name in names]]
    rows = [[e.label, str(e.version), *[figure_text(name, e.figure(name)) for name in names]] for e in evaluations]
    charts = [_estimates(evaluations, "pass_at_1"), _pass_at_k(evaluations) if k > 1 else ""]
    return f"<section><h2>Held-out results</h2>{_table(head, rows)}{_grid(charts)}</section>"


def _pass_at_k(evaluations: list[EvaluationRow]) -> str:
    """pass@k over k, one line for each evaluation.

    It shows whether training finds new solutions or only makes known solutions more likely.
    """
    series = []
    for e in _outer(evaluations):
        ks = sorted(int(name.removeprefix("pass_at_")) for name in e.figures if name.startswith("pass_at_"))
        points = [(float(k), e.figures[f"pass_at_{k}"].mean) for k in ks]
        series.append(svg.Series(e.label, points))
    return svg.line_chart("held-out pass@k", series, percent=True, x_name="k")


def _outer(evaluations: list[EvaluationRow]) -> list[EvaluationRow]:
    """Those before and after stages, and the first and the last: an evaluation during a stage would be one line too
    many."""
    last = len(evaluations) - 1
    return [e for i, e in enumerate(evaluations) if e.when != "during" or i in (0, last)]


def _estimates(evaluations: list[EvaluationRow], name: str) -> str:
    """A figure with its intervals: by step of the run when a stage was evaluated during its training."""
    if all(e.when != "during" for e in evaluations):
        return _dots(evaluations, name)
    points = [
        svg.Estimate(float(e.version), figure.mean, figure.low, figure.high, e.label)
        for e in evaluations
        if (figure := e.figure(name)) is not None
    ]
    return svg.estimate_chart(f"held-out {figure_name(name)}, 95 % interval", points, x_name="step of the run")


def _dots(evaluations: list[EvaluationRow], name: str) -> str:
    dots = [
        svg.Dot(f"{e.label}, v{e.version}", figure.mean, figure.low, figure.high)
        for e in evaluations
        if (figure := e.figure(name)) is not None
    ]
    return svg.dot_chart(f"held-out {figure_name(name)}, 95 % interval", dots)


def _stages(report: Report) -> str:
    head = ["stage", "steps", "time", "rollouts", "tokens trained", "versions", "lag mean", "lag max", "reward", "idle"]
    rows = []
    for s in report.stages:
        reward = "-" if s.reward_first is None else f"{s.reward_first:.3f} to {s.reward_last:.3f}"
        idle = ", ".join(f"{name} {100 * share:.0f} %" for name, share in report.idle.get(s.name, {}).items())
        rows.append(
            [
                s.name,
                f"{s.steps}/{s.planned_steps}",
                seconds_text(s.seconds),
                count_text(s.rollouts),
                count_text(s.tokens),
                f"{s.first_version}-{s.last_version}",
                _figure(s.lag_mean, 2),
                _figure(s.lag_max, 0),
                reward,
                idle or "-",
            ]
        )
    return f"<section><h2>Stages</h2>{_table(head, rows)}</section>"


def _curves(rows: list[Row], cfg: RunConfig) -> list[str]:
    sections = []
    for name in cfg.stages:
        mine = [row for row in rows if row.get("stage") == name]
        charts = [_chart("reward and its parts", ["reward", *_parts(mine)], mine)]
        sampled = cfg.stages[name].source == "rollouts"
        charts += [_chart(title, metrics, mine) for title, metrics in CHARTS if sampled or title not in SAMPLED_ONLY]
        charts += [_chart(title, _family(mine, start), mine) for title, start in FAMILIES]
        if any(charts):
            sections.append(f"<section><h2>Stage {escape(name)}</h2>{_grid(charts)}</section>")
    return sections


def _parts(rows: list[Row]) -> list[str]:
    """Reward parts between -1.5 and 1.5, like the reward; counts (search steps) have a chart of their own."""
    elsewhere = {metric for _, metrics in CHARTS for metric in metrics}
    names = dict.fromkeys(key for row in rows for key in row if key.startswith(PART) and key not in elsewhere)
    return [name for name in names if all(abs(row.get(name) or 0.0) <= 1.5 for row in rows)]


def _family(rows: list[Row], start: str) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row if key.startswith(start)))


def _chart(title: str, metrics: Sequence[str], rows: list[Row]) -> str:
    series = [svg.Series(name.removeprefix(PART).replace("_", " "), _points(name, rows)) for name in metrics]
    series = [s for s in series if any(y for _, y in s.points)] or series[:1]
    series = [s for i, s in enumerate(series) if s.points and s.points not in [t.points for t in series[:i]]]
    return svg.line_chart(title, series, x_name="step of the stage") if series else ""


def _points(name: str, rows: list[Row]) -> list[tuple[float, float]]:
    values = [(row.get("stage_step", row["step"]), row.get(name)) for row in rows]
    return [(float(x), float(y)) for x, y in values if isinstance(x, int | float) and isinstance(y, int | float)]


def _timelines(report: Report, rows: list[Row], spans: list[Span], cfg: RunConfig) -> str:
    """Timelines of the whole run and of each stage that trains on rollouts, where sampling and training overlap."""
    if not spans:
        return ""
    start, end = min(s.t0 for s in spans), max(s.t1 for s in spans)
    shown = [("the whole run", start, end)]
    windows = stage_windows(cfg, rows, [e.t for e in report.evaluations], spans)
    shown += [(f"stage {name}", *window) for name, window in windows.items() if cfg.stages[name].source == "rollouts"]
    charts = [svg.timeline(title, _lanes(spans, a, b, whole=not i), a, b) for i, (title, a, b) in enumerate(shown)]
    return f'<section><h2>Where the time went</h2><div class="wide">{"".join(charts)}</div></section>'


def _lanes(
    spans: list[Span], start: float, end: float, *, whole: bool
) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Spans within a window. Evaluations, which are spans of the hub, are drawn only for the whole run."""
    mine = [s for s in spans if s.t1 > start and s.t0 < end and (whole or s.kind != "evaluate")]
    return spans_by_worker(mine, (end - start) / 1500)


def _accounts(report: Report) -> str:
    tokens = _table(["tokens", ""], [[name, f"{n:,}"] for name, n in report.tokens.items()]) if report.tokens else ""
    groups = (
        _table(["groups", ""], [[name, f"{n:,}"] for name, n in report.groups.items() if n or name in ALWAYS_SHOWN])
        if report.groups
        else ""
    )
    lags = svg.bar_chart("lag of what was trained", [(lag, float(n)) for lag, n in report.lags.items()], "versions")
    digest = f'<p class="digest">final weights {escape(report.digest)}</p>' if report.digest else ""
    if not (tokens or groups or lags or digest):
        return ""
    return f'<section><h2>Account</h2><div class="accounts">{tokens}{groups}{_figure_box(lags)}</div>{digest}</section>'


def _examples(examples: list[dict[str, Any]]) -> str:
    if not examples:
        return ""
    cards = []
    for when in dict.fromkeys(str(row.get("when")) for row in examples):
        mine = [row for row in examples if str(row.get("when")) == when]
        cards.append(f"<h3>{escape(when)}</h3>" + "".join(_card(row) for row in mine))
    return f"<section><h2>Rollouts to read</h2>{''.join(cards)}</section>"


def _card(row: dict[str, Any]) -> str:
    status = escape(str(row.get("status", "")))
    facts = f"{row.get('num_tokens', '?')} tokens, version {row.get('version_min', '?')}"
    if row.get("version_max") != row.get("version_min"):
        facts += f"-{row.get('version_max')}"
    return (
        f'<article class="v-{status}"><p><b>{status}</b> <span>{escape(facts)}</span></p>'
        f'<pre class="prompt">{escape(str(row.get("prompt", "")))}</pre>'
        f"<pre>{escape(str(row.get('text', '')))}</pre></article>"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _grid(charts: Sequence[str]) -> str:
    return f'<div class="grid">{"".join(_figure_box(chart) for chart in charts if chart)}</div>'


def _figure_box(chart: str) -> str:
    return f"<figure>{chart}</figure>" if chart else ""


def _figure(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
