"""`rlsp replay`, `rlsp sampler`, `rlsp verifier`, `rlsp learner`: one service of a run as this process."""

from __future__ import annotations

import argparse
import runpy
import sys
from typing import NoReturn

from rlsp_async.cli.arguments import Commands, add_config_command

ROLES = {
    "replay": "the hub: ledger, journal, prompts, buffer",
    "sampler": "an inference engine; join as many as you like, from any machine",
    "verifier": "a pool of killable processes that check answers",
    "learner": "model, optimizer, checkpoints, published weights",
}


def add_parser(commands: Commands) -> None:
    """The arguments of the four roles."""
    for role, text in ROLES.items():
        parser = add_config_command(commands, role, f"one service: {text}")
        parser.add_argument("--worker", metavar="NAME", help=f"its name, unique in the run (default: {role}-0)")
        if role == "replay":
            parser.add_argument(
                "--stay",
                action="store_true",
                help="go on after a run that is complete, and tell the workers that come that it is over",
            )
        parser.set_defaults(function=serve_command, stay=False)


def serve_command(arguments: argparse.Namespace) -> NoReturn:
    """Runs services/ROLE.py as the main program of this process, which ends with that program's exit code."""
    from rlsp_async.service import service_path

    role: str = arguments.command
    worker = ["--worker", arguments.worker] if arguments.worker else []
    stay = ["--stay"] if arguments.stay else []
    sys.argv = [f"rlsp {role}", arguments.config, *arguments.overrides, *worker, *stay]
    runpy.run_path(str(service_path(role)), run_name="__main__")
    raise SystemExit(0)
