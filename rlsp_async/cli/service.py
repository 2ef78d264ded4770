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
        parser.set_defaults(function=serve_command)


def serve_command(arguments: argparse.Namespace) -> NoReturn:
    """Runs services/ROLE.py as the main program of this process, which ends with that program's exit code."""
    from rlsp_async.service import service_path

    role: str = arguments.command
    worker = ["--worker", arguments.worker] if arguments.worker else []
    sys.argv = [f"rlsp {role}", arguments.config, *arguments.overrides, *worker]
    runpy.run_path(str(service_path(role)), run_name="__main__")
    raise SystemExit(0)
