"""`rlsp chaos CONFIG`: the arguments, the progress and the verdict."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import msgspec

from rlsp_async.chaos.faults import ALWAYS, KINDS, ScheduledFault, parse_kinds, schedule
from rlsp_async.cli.arguments import Commands, add_config_command
from rlsp_async.config import RunConfig, load
from rlsp_async.errors import ConfigError

if TYPE_CHECKING:
    from rlsp_async.chaos.verdict import ChaosResult

DISK_MB = 1024
"""Size of the disk that `enospc` fills."""
TIMES = "median / 90 % / most"


def add_parser(commands: Commands) -> None:
    """The arguments of `rlsp chaos`."""
    parser = add_config_command(
        commands, "chaos", "run the line, break it on purpose by a schedule, audit what is left"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the schedule (default: 0)")
    parser.add_argument("--minutes", type=float, default=2.0, metavar="M", help="of faults (default: 2)")
    parser.add_argument(
        "--faults",
        default=",".join(ALWAYS),
        metavar="KINDS",
        help=f"comma separated, of {', '.join(KINDS)} (default: all but the last three)",
    )
    parser.add_argument("--rate", type=float, default=12.0, metavar="X", help="faults a minute (default: 12)")
    parser.add_argument(
        "--engine",
        default="scripted",
        choices=["scripted", "torch", "vllm"],
        help="of the samplers (default: scripted, a stub that needs no model)",
    )
    parser.add_argument(
        "--settle", type=float, default=300.0, metavar="S", help="seconds to finish after the last fault (default: 300)"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the schedule, one fault a line; start nothing")
    parser.add_argument("--json", action="store_true", help="the result as one JSON object")
    parser.set_defaults(function=chaos_command)


def chaos_command(arguments: argparse.Namespace) -> int:
    """Runs, injects faults, judges. Exit code 0: every step was trained and every guarantee holds; 1: not.

    Raises UserError for bad arguments.
    """
    if arguments.minutes <= 0 or arguments.rate <= 0:
        raise ConfigError("--minutes and --rate must be above 0")
    kinds = parse_kinds(arguments.faults)
    overrides = [*arguments.overrides, f"sampler.engine={arguments.engine}"]
    if "transfer" in kinds:
        overrides.append("learner.transport=channel")
    cfg = load(arguments.config, overrides)
    faults = schedule(arguments.seed, arguments.minutes, kinds, arguments.rate, cfg.replay.timeout_s)
    if arguments.dry_run:
        for fault in faults:
            print(_line(fault))
        return 0
    home = Path(cfg.runs_dir).expanduser().resolve()
    if (home / cfg.name).exists():
        raise ConfigError(f"{home / cfg.name} is there already: a chaos run begins a new one; choose another name=...")
    if "enospc" in kinds:
        result = _run_on_small_disk(cfg, arguments, overrides, faults, home)
    else:
        result = _run(cfg, arguments, overrides, faults, home)
    _print(result, home / cfg.name, arguments.json, sys.stdout)
    return 0 if result.passed else 1


def _line(fault: ScheduledFault) -> str:
    lasts = f"for {fault.seconds:.1f} s" if fault.seconds else ""
    more = " ".join(filter(None, [fault.what, "and killed" if fault.is_fatal else "", lasts]))
    return f"{fault.at_s:8.1f} s  {fault.kind:<12} {fault.target:<12} {more}".rstrip()


def _run_on_small_disk(
    cfg: RunConfig, arguments: argparse.Namespace, overrides: list[str], faults: list[ScheduledFault], home: Path
) -> ChaosResult:
    """Runs on a disk of its own that can be filled, and copies the run to its directory afterwards."""
    from rlsp_async.chaos.harness import keep_run
    from rlsp_async.chaos.machine import mount_small_disk, unmount

    place = Path(tempfile.mkdtemp(prefix="rlsp-chaos-"))
    try:
        mount_small_disk(place, DISK_MB)
        result = _run(cfg, arguments, overrides, faults, place)
        keep_run(place / cfg.name, home / cfg.name)
    finally:
        unmount(place)
    return result


def _run(
    cfg: RunConfig, arguments: argparse.Namespace, overrides: list[str], faults: list[ScheduledFault], place: Path
) -> ChaosResult:
    """Runs in `place` and judges the run."""
    import asyncio  # 20 ms that `rlsp --help` does not need

    from rlsp_async.chaos.harness import Harness, run_command
    from rlsp_async.chaos.verdict import judge_run

    output = Path(cfg.runs_dir).expanduser() / f"{cfg.name}.chaos.out"
    for directory in (place, output.parent):
        directory.mkdir(parents=True, exist_ok=True)
    overrides = [*overrides, f"runs_dir={place}"]
    cfg = msgspec.structs.replace(cfg, runs_dir=str(place))
    _say(f"{len(faults)} faults in {arguments.minutes:g} minutes, seed {arguments.seed}, run {cfg.directory}")
    harness = Harness(
        cfg,
        run_command(arguments.config, overrides),
        faults,
        arguments.seed,
        arguments.settle,
        output,
        _say,
    )
    return judge_run(cfg, asyncio.run(harness.run()), arguments.seed)


def _say(text: str) -> None:
    print(f"chaos: {text}", file=sys.stderr, flush=True)


def _print(result: ChaosResult, directory: Path, as_json: bool, out: TextIO) -> None:
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(result)).decode(), file=out)
        return
    faults = ", ".join(f"{num} {kind}" for kind, num in sorted(result.num_struck.items(), key=lambda i: -i[1]))
    print(f"\nchaos on {directory}, seed {result.seed}: {result.seconds:.0f} s, {faults or 'no faults'}", file=out)
    print(
        f"`rlsp run` started {result.starts} times; messages: "
        + ", ".join(f"{name} {num:,}" for name, num in result.messages.items()),
        file=out,
    )
    if result.num_unreached:
        print(
            f"{result.num_unreached} faults of the schedule were not reached: the run was over before; give it more "
            "steps",
            file=out,
        )
    print(f"\n{'':<12} {'':<12} {'':>5}   {'back at work, s':>22}   {'next step after, s':>22}", file=out)
    print(f"{'fault':<12} {'on':<12} {'times':>5}   {TIMES:>22}   {TIMES:>22}", file=out)
    for row in result.recoveries:
        print(
            f"{row.kind:<12} {row.target:<12} {row.num:>5}   "
            f"{_times(row.back_median_s, row.back_90_s, row.back_most_s):>22}   "
            f"{_times(row.step_median_s, row.step_90_s, row.step_most_s):>22}",
            file=out,
        )
    for finding in result.audit.findings if result.audit else []:
        print(f"{finding.outcome:<15} {finding.guarantee:<6} {finding.figures}", file=out)
        for bad in finding.rows[:5]:
            print(f"{'':<22} {bad}", file=out)
    print(f"\n{result.acknowledged:,} acknowledgements, each found in the journal" if result.passed else "", file=out)
    for reason in result.reasons:
        print(f"  {reason}", file=out)
    print("PASS" if result.passed else "FAIL", file=out)


def _times(median_s: float, ninety_s: float, most_s: float) -> str:
    return f"{median_s:.1f} / {ninety_s:.1f} / {most_s:.1f}" if median_s >= 0 else "-"
