"""The `rlsp` command: collects the commands, parses the arguments, and turns errors into exit codes.

Heavy libraries are imported after the arguments are understood, so `rlsp --help` is instant.

Exit codes: 0 done, 1 a bug (traceback), 2 something the user can correct (one line), 3 the run diverged, 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from rlsp_async import __version__
from rlsp_async.cli import (
    audit,
    chaos,
    check,
    clean,
    evaluate,
    export_model,
    grade,
    keys,
    offline,
    report,
    run,
    selftest,
    service,
    tasks,
)
from rlsp_async.contents import printable_lines
from rlsp_async.errors import DivergedError, MachineError, UserError, disk_is_full

COMMANDS = (
    run,
    check,
    service,
    evaluate,
    export_model,
    keys,
    grade,
    report,
    audit,
    chaos,
    tasks,
    offline,
    clean,
    selftest,
)
"""In the order of `rlsp --help`."""

EXAMPLES = """\
examples:
  rlsp check launch/configs/ops_cpu.toml              what will this run need, and is it sensible?
  rlsp run   launch/configs/ops_cpu.toml              train; run it again to continue or to see the result
  rlsp run   --resume runs/ops_cpu                    go on after anything, from any directory
  rlsp run   launch/configs/ops_cpu.toml name=b seed=3 stages.rlsp.steps=40
  rlsp report runs/ops_cpu                            the table of results; the curves are in report.html
  rlsp audit runs/ops_cpu                             was anything lost, trained twice, or trained too old?
  rlsp chaos launch/configs/chaos_cpu.toml            kill, freeze and disturb everything; nothing may be lost
  rlsp eval  runs/ops_cpu/final --task ops -n 8       held-out pass@1 and pass@8 of any model directory
  rlsp export-model runs/ops_cpu --step 1016          a checkpoint as a model directory, also while the run goes on
  rlsp demos ops -n 3                                 what the task looks like
  rlsp selftest                                       does it work here? one line a step; --gpu on a GPU
  rlsp clean runs                                     what runs that are over left in memory; --yes removes it
  rlsp tasks jsonl path_train=mine.jsonl --report     your own file: sizes, an example, rows that both splits have

on several machines (RUN is a directory that `rlsp run` prepared, on a shared disk or copied):
  rlsp keys    new keys                               once; says which files go where, see docs/operations.md
  rlsp sampler RUN/config.toml replay.address=tcp://hub.example:5555 replay.keys=keys --worker sampler-9

Every setting is `section.key=value`; an unknown key is refused with the nearest known name.
Exit codes: 0 done, 1 a bug (traceback), 2 you can mend it (one line says how), 3 the run diverged, 130 Ctrl-C.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """The entry point of `rlsp`; returns the exit code. A bug propagates with its traceback (Python exits with 1)."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # a user's own modules, such as "mine.reward"; last, so that they shadow nothing
    try:
        code = _exit_code(argv)
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        _discard_output()  # `rlsp report | head`: the reader has gone
        return 0
    except OSError as e:
        if not disk_is_full(e):
            raise
        _discard_output()  # the message would go to the full disk as well: the exit code alone reports the error
        return MachineError.exit_code
    return code


def _exit_code(argv: Sequence[str] | None) -> int:
    try:
        arguments = parse(list(sys.argv[1:] if argv is None else argv))
        code: int = arguments.function(arguments)
        return code
    except (UserError, DivergedError) as e:
        print(f"rlsp: {printable_lines(str(e))}", file=sys.stderr)
        return e.exit_code
    except KeyboardInterrupt:
        print("rlsp: stopped by Ctrl-C", file=sys.stderr)
        return 130


def _discard_output() -> None:
    """Sends further output to nowhere. Otherwise the interpreter's last flush fails again, and it exits with 120."""
    sys.stdout = sys.stderr = open("/dev/null", "w")  # noqa: SIM115


def parse(argv: list[str]) -> argparse.Namespace:
    """Parses the arguments; `key=value` may stand anywhere after the command, before or after options.

    Returns: the arguments, with `function`: the one that carries the command out and returns the exit code.
    Raises: SystemExit with code 2, after one line on stderr, for what no command knows.
    """
    parser = make_parser()
    arguments, rest = parser.parse_known_args(argv)
    unknown = [text for text in rest if text.startswith("-") or "=" not in text or not hasattr(arguments, "overrides")]
    if unknown:
        parser.error(f"{arguments.command} does not know {' '.join(unknown)!r}; rlsp {arguments.command} --help")
    if rest:
        arguments.overrides = [*arguments.overrides, *rest]
    return arguments


def make_parser() -> argparse.ArgumentParser:
    """The parser of `rlsp` with all its commands."""
    parser = argparse.ArgumentParser(
        prog="rlsp",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Asynchronous off-policy RL post-training of reasoning models (RLSP): "
        "sampling, verifying, remembering and learning as services that never wait for each other.",
    )
    parser.add_argument("--version", action="version", version=f"rlsp_async {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_parser(commands)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
