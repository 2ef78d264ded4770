"""`rlsp export-model RUN`: the model of a checkpoint as a Hugging Face directory."""

from __future__ import annotations

import argparse
from pathlib import Path

from rlsp_async.cli.arguments import Commands


def add_parser(commands: Commands) -> None:
    """The arguments of `rlsp export-model`."""
    parser = commands.add_parser("export-model", help="a checkpoint of a run as a model directory; the run may go on")
    parser.add_argument("run", metavar="RUN", help="directory of a run, e.g. runs/ops_cpu")
    parser.add_argument(
        "--step", type=int, default=None, metavar="N", help="of this step (with --stage: of the stage); default: newest"
    )
    parser.add_argument("--stage", default="", metavar="NAME", help="without --step: the model as the stage left it")
    parser.add_argument("--out", default="", metavar="DIR", help="default: RUN/exported/step-XXXXXXXX or .../NAME")
    parser.set_defaults(function=export_model_command)


def export_model_command(arguments: argparse.Namespace) -> int:
    """Writes the directory and prints its path. Raises UserError."""
    from rlsp_async.learning.export import export_model

    out = Path(arguments.out) if arguments.out else None
    print(export_model(Path(arguments.run), arguments.step, arguments.stage, out))
    return 0
