"""What several commands have in common: a config file with `key=value` overrides."""

from __future__ import annotations

import argparse
from typing import TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""What `ArgumentParser.add_subparsers` returns. Each command adds its parser, and in it the default `function`, which
carries the command out and returns the exit code."""


def add_config_command(commands: Commands, name: str, text: str) -> argparse.ArgumentParser:
    """Adds a command with the arguments CONFIG [key=value ...]."""
    parser = commands.add_parser(name, help=text, description=text)
    parser.add_argument("config", metavar="CONFIG", help="a TOML file, e.g. launch/configs/ops_cpu.toml")
    parser.add_argument(
        "overrides",
        metavar="key=value",
        nargs="*",
        default=[],
        help="settings that replace those of the file, e.g. seed=3 stages.rlsp.steps=40",
    )
    return parser
