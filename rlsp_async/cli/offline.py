"""`rlsp import` and `rlsp export`: the arguments; reading and writing rows is `rlsp_async.offline`."""

from __future__ import annotations

import argparse
from pathlib import Path

from rlsp_async.cli.arguments import Commands


def add_parser(commands: Commands) -> None:
    """The arguments of both commands."""
    _add_export(commands)
    _add_import(commands)


def _add_export(commands: Commands) -> None:
    parser = commands.add_parser("export", help="rollouts of a run's journal, as JSON lines or Parquet")
    parser.add_argument("run", metavar="RUN", help="directory of a run, or a journal.sqlite; the run may be going on")
    parser.add_argument(
        "--what",
        choices=("rollouts", "demonstrations"),
        default="rollouts",
        help="demonstrations: correct ones only, as the task `jsonl` reads them (default: rollouts)",
    )
    parser.add_argument("--stage", default="", metavar="NAME", help="of this stage only")
    parser.add_argument(
        "--out",
        default="",
        metavar="FILE",
        help="write there instead of on stdout; as Parquet when the name ends with .parquet (put together in memory)",
    )
    parser.add_argument("--tokens", action="store_true", help="token ids, log-probs and versions as well")
    parser.set_defaults(function=export_command)


def export_command(arguments: argparse.Namespace) -> int:
    """Prints or writes the rows. Raises UserError."""
    from rlsp_async.offline.export import export_rows

    return export_rows(
        Path(arguments.run),
        what=arguments.what,
        stage=arguments.stage,
        tokens=arguments.tokens,
        path_out=arguments.out,
    )


def _add_import(commands: Commands) -> None:
    parser = commands.add_parser("import", help="rollouts or demonstrations from a file, for a run to train on")
    parser.add_argument(
        "file", metavar="FILE", help="rows as `rlsp export` writes them: .jsonl, .json, .csv, .parquet or .arrow"
    )
    parser.add_argument(
        "--run",
        required=True,
        metavar="CONFIG",
        dest="config",
        help="the run's TOML file; its directory is prepared if it is not there",
    )
    parser.add_argument(
        "--group-by",
        default="",
        metavar="FIELD",
        help="rows with the same value there become groups "
        "of up to sampling.rollouts, e.g. group or prompt_id (default: every row alone)",
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="judge the responses with the task's verifier, whatever the file says of them",
    )
    parser.add_argument("overrides", metavar="key=value", nargs="*", default=[], help="as in `rlsp run`")
    parser.set_defaults(function=import_command)


def import_command(arguments: argparse.Namespace) -> int:
    """Adds the rows of a file to a run. Raises UserError."""
    from rlsp_async.offline.importing import import_rows

    return import_rows(
        Path(arguments.file),
        arguments.config,
        arguments.overrides,
        group_by=arguments.group_by,
        verify=arguments.verify,
    )
