"""What staleness costs: final pass@1 against lag and against reuse, algorithm by algorithm.

    rlsp run launch/configs/ops_small_sft.toml         the model that every cell starts from (half a minute)
    python benchmarks/staleness.py --page docs/staleness.md
    python benchmarks/staleness.py --algorithms reinforce,topr --lags 0,16 --reuses 1 --seeds 1

A cell is a whole run (launch/configs/ops_staleness.toml: hub, sampler, verifier, learner) with one algorithm, at one
lag or one reuse, with one seed; all start from the same model. At lag L every batch was sampled exactly L versions
before it is trained (fewer during the first L steps); one step is one update. At reuse r every group is trained in up
to r batches, which are r times as large: 8 new groups and the rest used ones, so that the numbers of steps and rollouts
are those without reuse. Results that are there are not run again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from arms import ROOT, Cell, Estimate, Result, add_common, difference, estimate, points, refuse, run_cells, write_page
from charts import curves

CONFIG = ROOT / "launch" / "configs" / "ops_staleness.toml"
GROUPS_PER_STEP = 8
_CRITIC = {"critic": "head_detached", "critic_lr": 3e-3, "critic_warmup_steps": 1, "lam": 1.0}
"""The value head of the main job's preset `rlsp_cpu`."""
ALGORITHMS: dict[str, tuple[str, str, dict[str, object]]] = {
    "reinforce": ("reinforce", "", {}),
    "ppo_clip": ("ppo", "clip_behaviour", _CRITIC),
    "ppo_decoupled": ("ppo", "decoupled_paper", {**_CRITIC, "weight_cap": 5.0}),
    "grpo_tis": ("grpo", "", {}),
    "topr": ("topr", "paper", {}),
    "m2po": ("reinforce", "m2po_released", {}),
    "rover": ("rover", "paper", {}),
    "rover_tis": ("rover", "paper", {"corrections.weight": "token"}),
    "oapl": ("oapl", "", {}),
}
"""Name in the tables -> algorithm, preset, options that override it."""
LAGS = (0, 1, 2, 4, 8, 16, 64)
REUSES = (1, 2, 4, 8)
GOAL_POINTS = 2.0
"""Largest loss of the best algorithm that is accepted at lag 16 and at reuse 4, in points."""


def main() -> int:
    args = arguments()
    cells = [
        cell(algorithm, kind, value, seed)
        for seed in range(args.seeds)
        for kind, value in conditions(args.lags, args.reuses)
        for algorithm in args.algorithms
    ]
    results = run_cells(cells, CONFIG, args.out, args.model, args.jobs)
    print("\n\n".join(report(results, args)))
    if args.page:
        charts = [_write_chart(results, args, kind) for kind, values in _axes(args) if len(values) > 1]
        write_page(args.page, "\n\n".join(charts + report(results, args)))
    return 0


def _axes(args: argparse.Namespace) -> list[tuple[str, list[int]]]:
    return [("lag", args.lags), ("reuse", args.reuses)]


def _write_chart(results: Sequence[Result], args: argparse.Namespace, kind: str) -> str:
    """Writes the chart beside the page; returns the line that shows it."""
    name, title = f"{args.page.stem}_{kind}.svg", f"pass@1 after 64 updates, by {kind}"
    args.page.with_name(name).write_text(
        curves(title, _means(results, args.algorithms, kind, dict(_axes(args))[kind]), kind)
    )
    return f"![{title}]({name})"


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the command line; exits with 2 and one line when it cannot be used."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algorithms", default=",".join(ALGORITHMS), help="comma separated (default: all)")
    parser.add_argument("--lags", default=",".join(map(str, LAGS)), help="comma separated")
    parser.add_argument("--reuses", default=",".join(map(str, REUSES)), help="comma separated; reuse 1 is lag 0")
    parser.add_argument("--seeds", type=int, default=3)
    add_common(parser, "staleness")
    args = parser.parse_args(argv)
    args.algorithms = args.algorithms.split(",")
    if unknown := [name for name in args.algorithms if name not in ALGORITHMS]:
        parser.error(f"--algorithms: there is no {', '.join(unknown)}; there are {', '.join(ALGORITHMS)}")
    args.lags, args.reuses = _numbers(parser, "lags", args.lags, 0), _numbers(parser, "reuses", args.reuses, 1)
    refuse(parser, args)
    return args


def _numbers(parser: argparse.ArgumentParser, name: str, text: str, least: int) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",") if part]
    except ValueError:
        parser.error(f"--{name}: {text!r} is not a list of whole numbers")
    if any(number < least for number in numbers):
        parser.error(f"--{name}: every number must be at least {least}")
    return numbers


def conditions(lags: Sequence[int], reuses: Sequence[int]) -> list[tuple[str, int]]:
    """What is measured, without the same thing twice: reuse 1 is lag 0."""
    found = [("lag", lag) for lag in lags] + [("reuse", reuse) if reuse > 1 else ("lag", 0) for reuse in reuses]
    return list(dict.fromkeys(found))


def cell(algorithm: str, kind: str, value: int, seed: int) -> Cell:
    """One run. `kind` is "lag" or "reuse"."""
    name, preset, options = ALGORITHMS[algorithm]
    overrides = [f"stages.rl.algorithm.name={name}", f"stages.rl.algorithm.preset={preset}"]
    overrides += [f"stages.rl.algorithm.options.{key}={option}" for key, option in options.items()]
    if kind == "lag":
        overrides += [
            f"stages.rl.target_lag={value}",
            f"stages.rl.selection_options.min_ready={(value + 1) * GROUPS_PER_STEP}",
        ]
    else:
        overrides += [
            f"stages.rl.max_uses={value}",
            f"stages.rl.groups_per_step={value * GROUPS_PER_STEP}",
            f"stages.rl.selection_options.min_new={1 / value}",
        ]
    return Cell(f"{algorithm}_{kind}{value}", tuple(overrides), seed)


# --- tables ----------------------------------------------------------------------------------------------------------


def report(results: Sequence[Result], args: argparse.Namespace) -> list[str]:
    """Markdown: one table by lag, one by reuse, and whether the goal is met."""
    parts = []
    for kind, values in _axes(args):
        if len(values) > 1:
            parts.append(_table(results, args.algorithms, kind, values))
    for kind, value in (("lag", 16), ("reuse", 4)):
        if value in (args.lags if kind == "lag" else args.reuses) and 0 in args.lags:
            parts.append(_losses(results, args.algorithms, kind, value))
    return parts


def of(results: Sequence[Result], algorithm: str, kind: str, value: int) -> list[Result]:
    """The runs of one cell, over the seeds."""
    arm = f"{algorithm}_lag0" if (kind, value) == ("reuse", 1) else f"{algorithm}_{kind}{value}"
    return [result for result in results if result.arm == arm]


def _table(results: Sequence[Result], algorithms: Sequence[str], kind: str, values: Sequence[int]) -> str:
    lines = [f"| {kind} | " + " | ".join(map(str, values)) + " |", "| --- " * (len(values) + 1) + "|"]
    for algorithm in algorithms:
        cells = [estimate([r.figures["pass_at_1"] for r in of(results, algorithm, kind, value)]) for value in values]
        lines.append(f"| `{algorithm}` | " + " | ".join(points(value) for value in cells) + " |")
    figure = "lag_mean" if kind == "lag" else "rollouts"
    means = [
        estimate(
            [r.figures[figure] for a in algorithms for r in of(results, a, kind, value) if figure in r.figures]
        ).mean
        for value in values
    ]
    label, form = ("mean lag, with the start", ".1f") if kind == "lag" else ("rollouts trained, with repeats", ".0f")
    lines.append(f"| {label} | " + " | ".join(f"{mean:{form}}" for mean in means) + " |")
    return "\n".join(lines)


def _losses(results: Sequence[Result], algorithms: Sequence[str], kind: str, value: int) -> str:
    """What each algorithm loses against itself at lag 0, and the best of all against the best at lag 0."""
    found = {a: difference(of(results, a, kind, value), of(results, a, "lag", 0)) for a in algorithms}
    lines = [
        f"| algorithm | {kind} {value} against lag 0, points |",
        "| --- | --- |",
        *(f"| `{a}` | {points(found[a], '+')} |" for a in algorithms),
    ]
    fresh, stale = (max((_mean(results, a, k, v), a) for a in algorithms) for k, v in (("lag", 0), (kind, value)))
    lost = 100 * (fresh[0] - stale[0])
    text = (
        f"The best at lag 0 is `{fresh[1]}` with {100 * fresh[0]:.1f} %, the best at {kind} {value} is "
        f"`{stale[1]}` with {100 * stale[0]:.1f} %: {lost:+.1f} points lost; the goal of at most "
        f"{GOAL_POINTS:.0f} is {'met' if lost <= GOAL_POINTS else 'missed'}."
    )
    return "\n".join(lines) + f"\n\n{text}"


def _mean(results: Sequence[Result], algorithm: str, kind: str, value: int) -> float:
    return estimate([r.figures["pass_at_1"] for r in of(results, algorithm, kind, value)]).mean


def _means(
    results: Sequence[Result], algorithms: Sequence[str], kind: str, values: Sequence[int]
) -> dict[str, list[tuple[int, Estimate]]]:
    return {
        a: [(value, estimate([r.figures["pass_at_1"] for r in of(results, a, kind, value)])) for value in values]
        for a in algorithms
    }


if __name__ == "__main__":
    sys.exit(main())
