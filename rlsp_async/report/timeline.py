"""The timeline as numbers: spans of work, merged per worker, and what share of a window a worker did nothing.

A span is one line of timeline.jsonl: {"t0", "t1", "worker", "kind", "what"}. A worker that works on several groups at
once has spans that overlap; merged, they say when it did anything at all.
"""

from __future__ import annotations

from typing import Any, NamedTuple

FEW = 200
"""So many spans of one kind are drawn one by one, also when they touch."""


class Span(NamedTuple):
    """Example: Span(3.0, 4.5, "sampler-0", "sample", "group 17")."""

    t0: float
    t1: float
    worker: str
    kind: str
    what: str = ""


def spans_of(rows: list[dict[str, Any]]) -> list[Span]:
    """Rows of timeline.jsonl in the order of their beginnings."""
    return sorted(
        Span(float(row["t0"]), float(row["t1"]), str(row["worker"]), str(row["kind"]), str(row.get("what", "")))
        for row in rows
    )


def merged(intervals: list[tuple[float, float]], gap_s: float = 0.0) -> list[tuple[float, float]]:
    """Disjoint intervals; closer than `gap_s` they become one: [(0, 2), (1, 3), (5, 6)] -> [(0, 3), (5, 6)]."""
    joined: list[tuple[float, float]] = []
    for t0, t1 in sorted(intervals):
        if joined and (t0 < joined[-1][1] or 0 < gap_s >= t0 - joined[-1][1]):
            joined[-1] = (joined[-1][0], max(joined[-1][1], t1))
        else:
            joined.append((t0, t1))
    return joined


def lanes(spans: list[Span], gap_s: float = 0.0) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Merged intervals by worker and kind, workers in the order of the line."""
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for span in sorted(spans, key=lambda s: (_rank(s.worker), s.worker, s.t0)):
        found.setdefault(span.worker, {}).setdefault(span.kind, []).append((span.t0, span.t1))
    return {
        worker: {kind: merged(times, gap_s if len(times) > FEW else 0.0) for kind, times in kinds.items()}
        for worker, kinds in found.items()
    }


def idle_shares(spans: list[Span], start: float, end: float) -> dict[str, float]:
    """Share of the window in which each worker had nothing to do, 0..1. A worker without a span in it: 1."""
    if end <= start:
        return {}
    shares = {}
    for worker in sorted(
        {span.worker for span in spans if span.kind != "evaluate"}, key=lambda name: (_rank(name), name)
    ):
        times = [
            (max(s.t0, start), min(s.t1, end)) for s in spans if s.worker == worker and s.t1 > start and s.t0 < end
        ]
        shares[worker] = max(0.0, 1.0 - sum(t1 - t0 for t0, t1 in merged(times)) / (end - start))
    return shares


def _rank(worker: str) -> int:
    order = ("sampler", "verifier", "learner")
    return next((i for i, role in enumerate(order) if worker.startswith(role)), len(order))
