"""`rlsp run`: the arguments; the command itself is `rlsp_async.runner.run`."""

from __future__ import annotations

import argparse

from rlsp_async.cli.arguments import Commands, add_config_command


def add_parser(commands: Commands) -> None:
    """The arguments of `rlsp run`."""
    parser = add_config_command(commands, "run", "train: prepare RUNS_DIR/NAME, start the services, watch, report")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="CONFIG is the directory of an interrupted run: go on "
        "with its own settings (how many samplers, ports and patience may be changed)",
    )
    parser.set_defaults(function=run_command)


def run_command(arguments: argparse.Namespace) -> int:
    """Trains, or continues, or shows a finished run. Raises UserError."""
    from rlsp_async.runner.run import resume, run

    return (resume if arguments.resume else run)(arguments.config, arguments.overrides)
