"""Numbers as people read them."""

from __future__ import annotations

from rlsp_async.report.rows import Estimate


def bytes_text(num_bytes: float) -> str:
    """1536 -> "1.5 KiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if num_bytes < 1024:
            return f"{num_bytes:.0f} B" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.1f} TiB"


def gib_text(gib: float) -> str:
    """0.53 -> "0.5 GiB"."""
    return f"{gib:.1f} GiB"


def count_text(count: float) -> str:
    """217280 -> "217 k"; 2450000 -> "2.45 M"; 960 -> "960"."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(count) >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f}"


def seconds_text(seconds: float) -> str:
    """75 -> "1 min 15 s"; 4000 -> "1 h 06 min"; below 10 with one digit."""
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
    """0.583 -> "58.3 %"; None -> "-"."""
    return "-" if share is None else f"{100 * share:.1f} %"


def interval_text(estimate: Estimate) -> str:
    """28.1-36.0 (percent)."""
    return f"{100 * estimate.low:.1f}-{100 * estimate.high:.1f}"


def figure_name(name: str) -> str:
    """pass_at_8 -> "pass@8"; response_tokens -> "response tokens"."""
    return name.replace("pass_at_", "pass@").replace("_", " ")


def figure_text(name: str, estimate: Estimate | None) -> str:
    """A figure of an evaluation: shares in percent with their interval, counts with one digit."""
    if estimate is None:
        return "-"
    if name.startswith("pass_at_"):
        return f"{percent_text(estimate.mean)} ({interval_text(estimate)})"
    return percent_text(estimate.mean) if name == "truncated" else f"{estimate.mean:.1f}"
