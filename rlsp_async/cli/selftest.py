"""`rlsp selftest`: the arguments and the output; the trials are in `rlsp_async.selftest`."""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rlsp_async.cli.arguments import Commands
from rlsp_async.errors import MachineError, UserError

EPILOG = """\
  rlsp selftest                    a minute, no GPU needed: does the installation work?
  rlsp selftest --gpu              ten minutes on a GPU: everything that tests on a CPU cannot show
  rlsp selftest --gpu --list       what it would look at, and what this machine lacks for it
  rlsp selftest --gpu --steps vllm,resume --dir out      two of the steps; their logs stay in out/
  rlsp selftest --gpu --device cpu the same trials on a CPU, tiny: the others say what they need

Each step runs in a process of its own with its own deadline, and the failure of one ends no other. Exit codes: 0 every
step that can run here passed, 2 one failed (its line says what, its log lies in the directory), 130 Ctrl-C.
"""
BASICS_S, GPU_S = 300.0, 600.0
"""Longest time of all steps together."""


def add_parser(commands: Commands) -> None:
    """The arguments of `rlsp selftest`."""
    parser = commands.add_parser(
        "selftest",
        help="try the installation, and with --gpu what needs a GPU; one line for each step",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--gpu", action="store_true", help="the trials for GPUs, in order of their value")
    parser.add_argument("--device", choices=["cuda", "cpu"], help="default: cuda with --gpu, else cpu")
    parser.add_argument("--steps", default="", metavar="A,B", help="these steps alone (default: all)")
    parser.add_argument("--list", action="store_true", help="show the steps and start nothing")
    parser.add_argument(
        "--minutes", type=float, metavar="N", help="longest time of all steps (default: 5, with --gpu 10)"
    )
    parser.add_argument("--dir", default="", metavar="DIR", help="keep logs and selftest.json in this directory")
    parser.set_defaults(function=selftest_command)


def selftest_command(arguments: argparse.Namespace) -> int:
    """Runs the steps and prints a table; returns 2 when one failed. Raises UserError."""
    from rlsp_async.selftest import trials as known
    from rlsp_async.selftest.run_trials import run_trials, what_there_is, write_outcomes

    device = arguments.device or ("cuda" if arguments.gpu else "cpu")
    steps = known.chosen(arguments.steps, known.GPU if arguments.gpu else known.BASICS)
    has = what_there_is(device)
    if arguments.list:
        for step in steps:
            missing = known.lacking(step, has)
            print(f"{step.name:<13} {step.shows}" + (f"   [needs {missing}]" if missing else ""))
        return 0
    if device == "cuda" and not has["cuda"]:
        raise MachineError(
            "torch sees no CUDA device here; `nvidia-smi` says whether the driver does. --device cpu runs what has a "
            "meaning on a CPU"
        )
    budget_s = 60 * arguments.minutes if arguments.minutes else GPU_S if arguments.gpu else BASICS_S
    with _directory(arguments.dir) as directory:
        outcomes = run_trials(steps, device, directory, budget_s, lambda line: print(line, flush=True), has)
        if arguments.dir:
            write_outcomes(outcomes, device, directory / "selftest.json")
        failed = [outcome.step for outcome in outcomes if outcome.status == "failed"]
        print("\n" + "\n".join(known.table(outcomes)))
    if failed:
        again = "" if arguments.dir else "; --dir DIR keeps their logs"
        print(f"\n{len(failed)} of {len(outcomes)} steps failed: {', '.join(failed)}{again}")
    return UserError.exit_code if failed else 0


@contextlib.contextmanager
def _directory(text: str) -> Iterator[Path]:
    """The directory of logs: the one that is named, which must be new or empty, or one that is removed at the end."""
    if not text:
        with tempfile.TemporaryDirectory(prefix="rlsp-selftest-") as made:
            yield Path(made)
        return
    directory = Path(text).expanduser().resolve()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        empty = not any(directory.iterdir())
    except OSError as e:
        raise MachineError(f"--dir {text}: cannot be made: {e.strerror}") from None
    if not empty:
        raise MachineError(f"--dir {text}: is not empty; give a new one")
    yield directory
