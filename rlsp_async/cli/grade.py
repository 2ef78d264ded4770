"""`rlsp grade`: the arguments; grading itself is `rlsp_async.grading`."""

from __future__ import annotations

import argparse

from rlsp_async.cli.arguments import Commands
from rlsp_async.errors import ConfigError


def add_parser(commands: Commands) -> None:
    """The arguments of `rlsp grade`."""
    text = "verdicts on JSON lines of answers (gold, response), in order"
    parser = commands.add_parser("grade", help=text, description=text)
    parser.add_argument("file", metavar="FILE", nargs="?", default="-", help="JSON lines; - or nothing: standard input")
    parser.add_argument(
        "--verifier",
        default="math",
        metavar="NAME",
        help="a shipped one, a dotted module or a file ending in .py; for lines that name none (default: math)",
    )
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="options",
        help="of that verifier, in TOML syntax; may be repeated",
    )
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="checker processes (default: 2)")
    parser.add_argument("--deadline-s", type=float, default=5.0, metavar="X", help="of one answer (default: 5)")
    parser.add_argument("--memory-mb", type=int, default=2048, metavar="N", help="of one checker (default: 2048)")
    parser.add_argument("--out", metavar="FILE", help="default: standard output")
    parser.set_defaults(function=grade_command)


def grade_command(arguments: argparse.Namespace) -> int:
    """Writes one record for each line; exit code 2 when a line was bad. Raises UserError."""
    from rlsp_async.grading import GradeSettings, grade_file

    if arguments.workers < 1 or not 0 < arguments.deadline_s < 3600 or arguments.memory_mb < 256:
        raise ConfigError("--workers must be at least 1, --deadline-s above 0, --memory-mb at least 256")
    return grade_file(
        arguments.file,
        arguments.out,
        GradeSettings(
            verifier=arguments.verifier,
            options=arguments.options,
            workers=arguments.workers,
            deadline_s=arguments.deadline_s,
            memory_mb=arguments.memory_mb,
        ),
    )
