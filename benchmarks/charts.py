"""A chart for a page of the docs: curves with intervals over named conditions, as SVG text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from arms import Estimate

WIDTH, HEIGHT = 760, 400
LEFT, RIGHT, TOP, BOTTOM = 56, 150, 40, 46
COLOURS = ("#000000", "#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#d55e00", "#0072b2", "#8a8a00")
"""The palette of Okabe and Ito, for any colour vision. Further curves use it again, dashed."""
NUDGE = 4.0
"""Horizontal distance between curves, so that their intervals can be read."""


def curves(title: str, found: Mapping[str, Sequence[tuple[int, Estimate]]], x_name: str) -> str:
    """One curve for each method: share of solved problems (0..1) by condition. Conditions are equally spaced."""
    names = [value for value, _ in next(iter(found.values()))]
    width = (WIDTH - LEFT - RIGHT) / max(1, len(names) - 1)
    body = _frame(title, names, width, x_name)
    ends = _spread({name: _y(points[-1][1].mean) for name, points in found.items()})
    for i, (name, points) in enumerate(found.items()):
        shift = (i - (len(found) - 1) / 2) * NUDGE
        places = [(LEFT + at * width + shift, value) for at, (_, value) in enumerate(points)]
        body += _curve(places, COLOURS[i % len(COLOURS)], dashed=i >= len(COLOURS))
        body.append(
            f'<text x="{WIDTH - RIGHT + 22}" y="{ends[name] + 4:.1f}" fill="{COLOURS[i % len(COLOURS)]}">'
            f"{escape(name)}</text>"
        )
    return "\n".join(body) + "\n</svg>\n"


def _frame(title: str, names: Sequence[int], width: float, x_name: str) -> list[str]:
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="13" role="img"><title>{escape(title)}</title>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="22" font-size="15" fill="#222222">{escape(title)}</text>',
    ]
    for tenth in range(0, 10, 2):
        y = _y(tenth / 10)
        lines.append(
            f'<line x1="{LEFT - 8}" x2="{WIDTH - RIGHT + 14}" y1="{y:.1f}" y2="{y:.1f}" stroke="#dddddd"/>'
            f'<text x="{LEFT - 14}" y="{y + 4:.1f}" text-anchor="end" fill="#444444">{10 * tenth} %</text>'
        )
    lines += [
        f'<text x="{LEFT + at * width:.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle" fill="#444444">'
        f"{name}</text>"
        for at, name in enumerate(names)
    ]
    middle = (LEFT + WIDTH - RIGHT) / 2
    return [*lines, f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle" fill="#444444">{escape(x_name)}</text>']


def _curve(places: Sequence[tuple[float, Estimate]], colour: str, *, dashed: bool) -> list[str]:
    dashes = ' stroke-dasharray="5 4"' if dashed else ""
    path = " ".join(f"{x:.1f},{_y(value.mean):.1f}" for x, value in places)
    lines = [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dashes}/>']
    for x, value in places:
        lines.append(f'<circle cx="{x:.1f}" cy="{_y(value.mean):.1f}" r="3" fill="{colour}"/>')
        if value.half == value.half:
            low, high = _y(max(0.0, value.mean - value.half)), _y(min(0.9, value.mean + value.half))
            lines.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}" stroke="{colour}"/>')
    return lines


def _y(share: float) -> float:
    """0 at the bottom, .9 at the top."""
    return HEIGHT - BOTTOM - share / 0.9 * (HEIGHT - BOTTOM - TOP)


def _spread(wanted: Mapping[str, float], apart: float = 15.0) -> dict[str, float]:
    """Positions of the labels: near their curves' ends, without overlap."""
    placed: dict[str, float] = {}
    lowest = float("inf")
    for name, y in sorted(wanted.items(), key=lambda item: -item[1]):
        lowest = placed[name] = min(y, lowest - apart)
    return placed
