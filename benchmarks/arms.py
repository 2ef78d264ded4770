"""Does a method do better than its control? Whole runs, arm by arm, seed by seed.

    python benchmarks/arms.py launch/configs/ops_rover.toml --seeds 3 --page docs/recipes/rover.md
        --arm "control: stages.rl.algorithm.name=grpo" --arm "rover:"

The first arm is the control. An arm is the TOML with the overrides after its colon; every other setting, the model that
the arms start from, the held-out prompts and (seed by seed) the prompts of training are the same. The table has the
mean over the seeds with a 95 % interval (Student's t over the seeds), and the difference to the control, seed by seed.
A run that diverges (exit code 3) leaves no model and counts as 0. Results that are there are not run again: start the
program again to go on, or with another `--out` to begin from nothing. `--page` writes the table between the page's
<!-- figures --> marks.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
DIVERGED = 3
"""Exit code of `rlsp run` when a loss is not finite or the run cannot succeed."""
T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""97.5 % quantiles of Student's t, for 1, 2, ... degrees of freedom."""
MARKS = ("<!-- figures -->", "<!-- /figures -->")
HEAVY = (
    "checkpoints",
    "model",
    "reference",
    "stages",
    "final",
    "journal.sqlite",
    "rollouts.jsonl",
    "timeline.jsonl",
    "report.html",
    "evaluations.jsonl",
)
"""Parts of a finished run that no table needs; they are removed."""


class Cell(NamedTuple):
    """One run: an arm with a seed."""

    arm: str
    overrides: tuple[str, ...]
    seed: int

    @property
    def name(self) -> str:
        return f"{self.arm}-{self.seed}"


class Result(NamedTuple):
    """The figures of a run."""

    arm: str
    seed: int
    figures: dict[str, float]
    """Means of the last evaluation, and of the last stage: rollouts, steps, lag_mean, lag_max."""


class Estimate(NamedTuple):
    """A mean over seeds and half of its 95 % interval; the half is NaN for one seed."""

    mean: float
    half: float


def main() -> int:
    args = arguments()
    cells = [Cell(name, overrides, seed) for seed in range(args.seeds) for name, overrides in args.arm]
    results = run_cells(cells, args.config, args.out, args.model, args.jobs)
    text = table(results, [name for name, _ in args.arm])
    print(text)
    if args.page:
        write_page(args.page, f"{text}\n\n{_provenance(args)}")
    return 0


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the command line; exits with 2 and one line when it cannot be used."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, metavar="CONFIG", help="the TOML that the arms share")
    parser.add_argument(
        "--arm",
        action="append",
        type=read_arm,
        required=True,
        metavar="'NAME: KEY=VALUE ...'",
        help="an arm and its overrides; the first is the control",
    )
    parser.add_argument("--seeds", type=int, default=3, help="runs of each arm")
    add_common(parser, "arms")
    args = parser.parse_args(argv)
    names = [name for name, _ in args.arm]
    if len(set(names)) < len(names):
        parser.error(f"--arm: two arms have the same name: {', '.join(names)}")
    args.out = args.out / args.config.stem
    refuse(parser, args)
    return args


def add_common(parser: argparse.ArgumentParser, folder: str) -> None:
    """Adds the arguments that all benchmarks of arms share."""
    parser.add_argument(
        "--model",
        type=Path,
        default=None,
        metavar="DIR",
        help="Hugging Face directory that every arm starts from (default: what the TOML says)",
    )
    parser.add_argument("--jobs", type=int, default=2, help="runs at once; each keeps about one core busy")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / folder, metavar="DIR", help="where the runs go")
    parser.add_argument("--page", type=Path, default=None, metavar="FILE.md", help="page that gets the table")


def refuse(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Exits with 2 for a page without marks, or a model that is not there."""
    if args.page and MARKS[0] not in args.page.read_text():
        parser.error(f"--page: {args.page} has no line {MARKS[0]}")
    if args.model and not (args.model / "config.json").is_file():
        parser.error(
            f"--model: no model in {args.model}; `rlsp run launch/configs/ops_small_sft.toml` leaves one in "
            "runs/ops_small_sft/final"
        )
    if args.seeds < 1 or args.jobs < 1:
        parser.error("--seeds and --jobs must be at least 1")


def read_arm(text: str) -> tuple[str, tuple[str, ...]]:
    """'rover: a.b=1 c="x y"' -> ("rover", ("a.b=1", "c=x y"))."""
    name, colon, overrides = text.partition(":")
    if not colon or not name.strip().replace("_", "").replace("-", "").replace(".", "").isalnum():
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form 'NAME: KEY=VALUE ...'")
    return name.strip(), tuple(shlex.split(overrides))


# --- runs ------------------------------------------------------------------------------------------------------------


def run_cells(cells: Sequence[Cell], config: Path, out: Path, model: Path | None, jobs: int) -> list[Result]:
    """Runs the cells without a result, `jobs` at once, in order. Raises CalledProcessError for a run that failed."""
    out.mkdir(parents=True, exist_ok=True)

    def one(at: int) -> Result:
        result = _run(cells[at], config, out, model)
        print(f"[{at + 1}/{len(cells)}] {cells[at].name}: pass@1 {result.figures['pass_at_1']:.3f}", flush=True)
        return result

    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(one, range(len(cells))))


def _run(cell: Cell, config: Path, out: Path, model: Path | None) -> Result:
    done = out / f"{cell.name}.json"
    if not done.is_file():
        command = [
            sys.executable,
            "-m",
            "rlsp_async.cli",
            "run",
            str(config),
            *cell.overrides,
            f"name={cell.name}",
            f"seed={cell.seed}",
            f"runs_dir={out}",
            *([f"model.path={model.resolve()}"] if model else []),
        ]
        shutil.rmtree(out / cell.name, ignore_errors=True)
        env = {"OMP_NUM_THREADS": "1", **os.environ, "PYTHONPATH": str(ROOT)}
        with (out / f"{cell.name}.out").open("w") as log:
            code = subprocess.run(
                command, cwd=ROOT, env=env, stdout=log, stderr=subprocess.STDOUT, check=False, stdin=subprocess.DEVNULL
            ).returncode
        if code not in (0, DIVERGED):
            tail = (out / f"{cell.name}.out").read_text()[-1500:]
            raise subprocess.CalledProcessError(code, command, stderr=tail)
        figures = read_figures(out / cell.name / "report.json") if code == 0 else {"pass_at_1": 0.0, "diverged": 1.0}
        done.write_text(
            json.dumps({"arm": cell.arm, "overrides": cell.overrides, "seed": cell.seed, "figures": figures}) + "\n"
        )
        for part in HEAVY:
            _remove(out / cell.name / part)
    row = json.loads(done.read_text())
    if tuple(row["overrides"]) != cell.overrides:
        raise SystemExit(
            f"{done}: was made with other overrides ({shlex.join(row['overrides'])}); remove it, or give another --out"
        )
    return Result(row["arm"], row["seed"], row["figures"])


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def read_figures(path: Path) -> dict[str, float]:
    """Means of the newest evaluation and of the stages that trained on rollouts."""
    report = json.loads(path.read_text())
    figures = {name: float(value["mean"]) for name, value in report["evaluations"][-1]["figures"].items()}
    trained = [stage for stage in report["stages"] if stage["lag_mean"] is not None]
    figures |= {
        "rollouts": float(sum(stage["rollouts"] for stage in trained)),
        "steps": float(sum(stage["steps"] for stage in trained)),
        "lag_mean": float(trained[-1]["lag_mean"]),
        "lag_max": float(trained[-1]["lag_max"]),
    }
    return figures


# --- tables ----------------------------------------------------------------------------------------------------------


def estimate(values: Sequence[float]) -> Estimate:
    """(.6, .62, .64) -> .62 +- .0497."""
    num, mean = len(values), sum(values) / len(values)
    if num < 2:
        return Estimate(mean, float("nan"))
    variance = sum((x - mean) ** 2 for x in values) / (num - 1)
    t = T_975[num - 2] if num - 2 < len(T_975) else 1.96
    return Estimate(mean, t * (variance / num) ** 0.5)


def difference(ours: Sequence[Result], control: Sequence[Result], figure: str = "pass_at_1") -> Estimate:
    """The mean difference of a figure, over the seeds that both have."""
    theirs = {result.seed: result.figures[figure] for result in control}
    return estimate([r.figures[figure] - theirs[r.seed] for r in ours if r.seed in theirs])


def table(results: Sequence[Result], arms: Sequence[str]) -> str:
    """The results as a Markdown table; the first arm is the control."""
    widest = max((name for r in results for name in r.figures if name.startswith("pass_at_")), key=_k)
    lines = [
        f"| arm | seeds | pass@1, % | against the control, points | pass@{_k(widest)}, % | response tokens | "
        "search steps | rollouts trained | mean lag |",
        "| --- " * 9 + "|",
    ]
    by_arm = {arm: [result for result in results if result.arm == arm] for arm in arms}
    for arm, own in by_arm.items():
        versus = "" if arm == arms[0] else points(difference(own, by_arm[arms[0]]), "+")
        num_diverged = sum(r.figures.get("diverged", 0.0) > 0 for r in own)
        note = f" ({num_diverged} diverged)" if num_diverged else ""
        alive = [r for r in own if "diverged" not in r.figures]
        lines.append(
            f"| {arm}{note} | {len(own)} | {points(estimate([r.figures['pass_at_1'] for r in own]))} | "
            f"{versus} | {_mean(alive, widest, 100)} | {_mean(alive, 'response_tokens')} | "
            f"{_mean(alive, 'search_steps')} | {_mean(alive, 'rollouts')} | {_mean(alive, 'lag_mean')} |"
        )
    return "\n".join(lines)


def _k(name: str) -> int:
    return int(name.removeprefix("pass_at_"))


def _mean(results: Sequence[Result], figure: str, factor: float = 1.0) -> str:
    values = [r.figures[figure] * factor for r in results if figure in r.figures]
    mean = sum(values) / len(values) if values else float("nan")
    return f"{mean:.0f}" if mean >= 1000 else f"{mean:.1f}"


def points(value: Estimate, sign: str = "") -> str:
    """.62 +- .05 -> "62.0 +- 5.0"."""
    half = "" if value.half != value.half else f" +- {100 * value.half:.1f}"
    return f"{100 * value.mean:{sign}.1f}{half}"


def write_page(page: Path, text: str) -> None:
    """Puts text between the page's marks."""
    before, _, rest = page.read_text().partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    page.write_text(f"{before}{MARKS[0]}\n\n{text}\n\n{MARKS[1]}{after}")


def _provenance(args: argparse.Namespace) -> str:
    seeds = f"{args.seeds} seed{'s' if args.seeds > 1 else ''}"
    return (
        f"Mean and 95 % interval over {seeds}; the difference is taken seed by seed. Torch engine, two CPU cores, "
        f"commit {_commit()}."
    )


def _commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main())
