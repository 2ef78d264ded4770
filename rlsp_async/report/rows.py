"""The rows of a run's jsonl files in the one form that report and curves read, whoever wrote them.

step        {"step", "stage", "stage_step", "t", "reward", "part_correct", "lag_mean", ...}      flat, numbers only
evaluation  Evaluation(stage, when, version, figures={"pass_at_1": Estimate(...), "pass_at_8": ...})
rollout     {"when": step | before | after, "prompt", "text", "status", "num_tokens", "version_min", "version_max"}
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from rlsp_async.errors import DataError

Row = dict[str, Any]
PART = "part_"


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A mean over prompts and its 95 % interval."""

    mean: float
    low: float
    high: float


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """One evaluation. Figures: pass_at_1, pass_at_2 .. pass_at_k, response_tokens, search_steps, truncated."""

    stage: str
    when: str
    """before | after"""
    version: int
    prompts: int
    rollouts: int
    """Of each prompt."""
    figures: dict[str, Estimate]
    t: float = 0.0

    @property
    def k(self) -> int:
        """The largest k of the pass@k that were estimated; 0: none."""
        found = [int(m[1]) for name in self.figures if (m := re.fullmatch(r"pass_at_(\d+)", name))]
        return max(found, default=0)

    def figure(self, name: str) -> Estimate | None:
        """An estimate by name; None when it was not made."""
        return self.figures.get(name)


def step_row(row: Row, trained_at: Mapping[int, float]) -> Row:
    """One row of metrics.jsonl. `trained_at`: end of each step's span, for rows that carry no time of the run."""
    step = int(row["step"])
    flat = {name.replace("parts.", PART, 1): value for name, value in row.items()}
    flat["t"] = float(row.get("t", trained_at.get(step, row.get("seconds", 0.0))))
    return flat


def evaluation_row(row: Row) -> Evaluation:
    """A row of evaluations.jsonl: figures as {"mean", "low", "high"}, or flat with _low and _high. Raises DataError."""
    try:
        prompts = int(_first(row, "num_prompts", "prompts"))
        total = int(_first(row, "num_rollouts"))
        return Evaluation(
            stage=str(row["stage"]),
            when=str(row["when"]),
            version=int(row["version"]),
            prompts=prompts,
            rollouts=int(row["rollouts"]) if "rollouts" in row else total // max(1, prompts),
            figures=_figures(row),
            t=_first(row, "t", "seconds"),
        )
    except (KeyError, TypeError, ValueError) as e:
        raise DataError(f"evaluations.jsonl: a row that cannot be read: {e!r}") from None


def _first(row: Row, *names: str) -> float:
    """The first of these that the row has as a number; 0 when it has none."""
    return next((float(row[name]) for name in names if isinstance(row.get(name), int | float)), 0.0)


def _figures(row: Row) -> dict[str, Estimate]:
    figures = {}
    for name, value in row.items():
        if isinstance(value, dict) and {"mean", "low", "high"} <= value.keys():
            figures[name] = Estimate(mean=value["mean"], low=value["low"], high=value["high"])
        elif f"{name}_low" in row or name in ("length", "search_steps", "truncated"):
            low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
            figures[_long_name(name, row)] = Estimate(
                mean=value, low=value if low is None else low, high=value if high is None else high
            )
    return figures


def _long_name(name: str, row: Row) -> str:
    return f"pass_at_{row.get('k', 'k')}" if name == "pass_at_k" else name.replace("length", "response_tokens")


def headline_figures(evaluations: list[Evaluation]) -> list[str]:
    """Names of the figures for a table, in the order written: of the pass@k only 1 and the largest."""
    names = dict.fromkeys(name for e in evaluations for name in e.figures)
    kept = ("pass_at_1", f"pass_at_{max((e.k for e in evaluations), default=0)}")
    return [name for name in names if not name.startswith("pass_at_") or name in kept]


def rollout_row(row: Row) -> Row:
    """One row of rollouts.jsonl."""
    when = row.get("when") or str(row.get("evaluation", "")).partition(" ")[0] or "step"
    return {
        **row,
        "when": when,
        "num_tokens": row.get("num_tokens", row.get("tokens")),
        "version_min": row.get("version_min", row.get("oldest_version")),
        "version_max": row.get("version_max", row.get("newest_version")),
    }
