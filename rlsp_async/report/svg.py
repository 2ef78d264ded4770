"""Charts as SVG text: lines, dots with intervals, estimates over steps, bars, timelines.

Every function is pure. Sizes are in the units of the SVG, which the page scales to its column. Colours are CSS classes
of the page (c0..c5, k-KIND).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple

from rlsp_async.report.text import count_text

WIDTH, HEIGHT = 520, 210
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 28, 30
MAX_POINTS = 240
LANE_HEIGHT, LANE_GAP, LANE_LEFT = 20, 8, 92
TIMELINE_WIDTH = 1064

Points = Sequence[tuple[float, float]]


class Series(NamedTuple):
    """A named line. Points are (x, y)."""

    name: str
    points: Points


class Dot(NamedTuple):
    """A value with its interval, above a label on the x axis."""

    label: str
    value: float
    low: float
    high: float


class Estimate(NamedTuple):
    """A value with its interval at a place on the x axis."""

    x: float
    value: float
    low: float
    high: float
    label: str
    """Shown as tooltip."""


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round numbers that cover [low, high]: steps of 1, 2, 2.5 or 5 times a power of ten."""
    if not high > low:
        low, high = low - 0.1 * (abs(low) or 1.0), high + 0.1 * (abs(high) or 1.0)
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def thin_points(points: Points, most: int = MAX_POINTS) -> list[tuple[float, float]]:
    """At most `most` points; neighbouring points are averaged."""
    if len(points) <= most:
        return list(points)
    size = math.ceil(len(points) / most)
    parts = [points[i : i + size] for i in range(0, len(points), size)]
    return [(sum(x for x, _ in p) / len(p), sum(y for _, y in p) / len(p)) for p in parts]


def line_chart(title: str, series: Sequence[Series], *, percent: bool = False, x_name: str = "step") -> str:
    """Lines over steps, with a legend when there are several; the tooltip of a line has its last value."""
    drawn = [Series(s.name, thin_points(s.points)) for s in series if s.points]
    if not drawn:
        return ""
    xs = [x for s in drawn for x, _ in s.points]
    ys = [y for s in drawn for _, y in s.points]
    x_ticks, y_ticks = [t for t in ticks(min(xs), max(xs), 5) if min(xs) <= t <= max(xs)], ticks(min(ys), max(ys))
    x_of = _scale(min(xs), max(xs), LEFT, WIDTH - RIGHT)
    y_of = _scale(y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM, TOP)
    body = [_axes(x_ticks, y_ticks, x_of, y_of, percent, x_name)]
    for i, s in enumerate(drawn):
        path = " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in s.points)
        last = _label(s.points[-1][1], percent)
        body.append(
            f'<polyline class="line c{i % 6}" points="{path}"><title>{escape(s.name)}: {last}</title></polyline>'
        )
        if len(s.points) <= 40:
            body += [
                f'<circle class="dot c{i % 6}" cx="{x_of(x):.1f}" cy="{y_of(y):.1f}" r="2.2"/>' for x, y in s.points
            ]
    return _svg(title, body, [s.name for s in drawn] if len(drawn) > 1 else [])


def dot_chart(title: str, dots: Sequence[Dot]) -> str:
    """Values with intervals, in percent, in one column each."""
    if not dots:
        return ""
    y_ticks = ticks(0.0, min(1.0, max(d.high for d in dots)))
    y_of = _scale(y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM, TOP)
    body = [_axes([], y_ticks, lambda x: x, y_of, True, "")]
    width = (WIDTH - LEFT - RIGHT) / len(dots)
    for i, d in enumerate(dots):
        x = LEFT + width * (i + 0.5)
        body.append(
            f'<line class="interval c0" x1="{x:.1f}" x2="{x:.1f}" y1="{y_of(d.low):.1f}" y2="{y_of(d.high):.1f}"/>'
        )
        body += [
            f'<line class="interval c0" x1="{x - 7:.1f}" x2="{x + 7:.1f}" y1="{y_of(end):.1f}" y2="{y_of(end):.1f}"/>'
            for end in (d.low, d.high)
        ]
        body.append(f'<circle class="dot c0" cx="{x:.1f}" cy="{y_of(d.value):.1f}" r="4"/>')
        body.append(f'<text class="value" x="{x + 12:.1f}" y="{y_of(d.value) + 4:.1f}">{100 * d.value:.1f} %</text>')
        body.append(f'<text class="tick" text-anchor="middle" x="{x:.1f}" y="{HEIGHT - 10}">{escape(d.label)}</text>')
    return _svg(title, body, [])


def estimate_chart(title: str, points: Sequence[Estimate], x_name: str) -> str:
    """Values with intervals, in percent, over a common x axis, joined by a line."""
    if not points:
        return ""
    xs = [point.x for point in points]
    x_ticks = [t for t in ticks(min(xs), max(xs), 5) if min(xs) <= t <= max(xs)]
    y_ticks = ticks(min(point.low for point in points), max(point.high for point in points))
    x_of = _scale(min(xs), max(xs), LEFT + 8, WIDTH - RIGHT - 8)
    y_of = _scale(y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM, TOP)
    path = " ".join(f"{x_of(p.x):.1f},{y_of(p.value):.1f}" for p in points)
    body = [_axes(x_ticks, y_ticks, x_of, y_of, True, x_name), f'<polyline class="line c0" points="{path}"/>']
    for p in points:
        x, about = x_of(p.x), f"{escape(p.label)}: {100 * p.value:.1f} % ({100 * p.low:.1f}-{100 * p.high:.1f})"
        body.append(
            f'<line class="interval c0" x1="{x:.1f}" x2="{x:.1f}" y1="{y_of(p.low):.1f}" y2="{y_of(p.high):.1f}"/>'
            f'<circle class="dot c0" cx="{x:.1f}" cy="{y_of(p.value):.1f}" r="3.5"><title>{about}</title></circle>'
        )
    return _svg(title, body, [])


def bar_chart(title: str, bars: Sequence[tuple[str, float]], x_name: str) -> str:
    """Counts, in one column each."""
    if not bars:
        return ""
    y_ticks = ticks(0.0, max(value for _, value in bars))
    y_of = _scale(y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM, TOP)
    body = [_axes([], y_ticks, lambda x: x, y_of, False, x_name)]
    width = (WIDTH - LEFT - RIGHT) / len(bars)
    for i, (label, value) in enumerate(bars):
        x, wide = LEFT + width * i, min(width * 0.7, 90)
        x += (width - wide) / 2
        body.append(
            f'<rect class="bar c0" x="{x:.1f}" y="{y_of(value):.1f}" width="{wide:.1f}" '
            f'height="{max(0.0, y_of(0) - y_of(value)):.1f}"><title>{escape(label)}: {value:g}</title></rect>'
        )
        body.append(
            f'<text class="tick" text-anchor="middle" x="{x + wide / 2:.1f}" y="{HEIGHT - 16}">{escape(label)}</text>'
        )
    return _svg(title, body, [])


def timeline(title: str, lanes: dict[str, dict[str, list[tuple[float, float]]]], start: float, end: float) -> str:
    """One lane for each worker, one coloured box for each span; lanes share the time axis."""
    if not lanes or end <= start:
        return ""
    x_of = _scale(start, end, LANE_LEFT, TIMELINE_WIDTH - 10)
    pitch, rail = LANE_HEIGHT + LANE_GAP, TIMELINE_WIDTH - 10 - LANE_LEFT
    height = 30 + pitch * len(lanes) + 26
    body = []
    for tick in (t for t in ticks(start, end, 10) if start <= t <= end):
        body.append(
            f'<line class="grid" x1="{x_of(tick):.1f}" x2="{x_of(tick):.1f}" y1="26" y2="{height - 22}"/>'
            f'<text class="tick" text-anchor="middle" x="{x_of(tick):.1f}" y="{height - 8}">{tick:g} s</text>'
        )
    for row, (worker, kinds) in enumerate(lanes.items()):
        y = 30 + pitch * row
        body.append(f'<text class="lane" x="0" y="{y + 14}">{escape(worker)}</text>')
        body.append(f'<rect class="rail" x="{LANE_LEFT}" y="{y}" width="{rail}" height="{LANE_HEIGHT}"/>')
        for kind, times in kinds.items():
            body += [_box(kind, max(t0, start), min(t1, end), x_of, y) for t0, t1 in times if t1 > start and t0 < end]
    legend = list(dict.fromkeys(kind for lane in lanes.values() for kind in lane))
    return _svg(title, body, legend, width=TIMELINE_WIDTH, height=height, kind=True)


def _box(kind: str, t0: float, t1: float, x_of: Callable[[float], float], y: int) -> str:
    tall = LANE_HEIGHT - 8 if kind == "load" else LANE_HEIGHT
    return (
        f'<rect class="box k-{escape(kind)}" x="{x_of(t0):.2f}" y="{y + (LANE_HEIGHT - tall) / 2:g}" '
        f'width="{max(0.6, x_of(t1) - x_of(t0)):.2f}" height="{tall}">'
        f"<title>{escape(kind)} {t0:.2f} - {t1:.2f} s</title></rect>"
    )


# --- shared --------------------------------------------------------------------------------------------------------


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    span = (high - low) or 1.0
    return lambda value: start + (value - low) / span * (end - start)


def _axes(
    x_ticks: Sequence[float],
    y_ticks: Sequence[float],
    x_of: Callable[[float], float],
    y_of: Callable[[float], float],
    percent: bool,
    x_name: str,
) -> str:
    parts = []
    for t in y_ticks:
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y_of(t):.1f}" y2="{y_of(t):.1f}"/>')
        parts.append(
            f'<text class="tick" text-anchor="end" x="{LEFT - 6}" y="{y_of(t) + 4:.1f}">{_label(t, percent)}</text>'
        )
    parts += [
        f'<text class="tick" text-anchor="middle" x="{x_of(t):.1f}" y="{HEIGHT - 16}">{_label(t, False)}</text>'
        for t in x_ticks
    ]
    if x_name:
        parts.append(
            f'<text class="tick" text-anchor="end" x="{WIDTH - RIGHT}" y="{HEIGHT - 4}">{escape(x_name)}</text>'
        )
    return "".join(parts)


def _label(value: float, percent: bool) -> str:
    if percent:
        return f"{100 * value:.3g} %"
    return f"{value:.4g}" if abs(value) < 10_000 else count_text(value)


def _svg(
    title: str,
    body: Sequence[str],
    legend: Sequence[str],
    *,
    width: int = WIDTH,
    height: int = HEIGHT,
    kind: bool = False,
) -> str:
    x = width - 10.0
    marks = []
    for i, name in reversed(list(enumerate(legend))):
        x -= 7.0 * len(name)
        marks.append(f'<text class="tick" x="{x:.0f}" y="14">{escape(name)}</text>')
        x -= 14
        colour = f"k-{escape(name)}" if kind else f"c{i % 6}"
        marks.append(f'<rect class="mark {colour}" x="{x:.0f}" y="5" width="10" height="10" rx="2"/>')
        x -= 12
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">'
        f'<text class="title" x="0" y="14">{escape(title)}</text>{"".join(marks)}{"".join(body)}</svg>'
    )
