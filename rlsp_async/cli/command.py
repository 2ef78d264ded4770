"""The `rlsp` command. Heavy libraries are imported after the arguments are understood: `rlsp --help` is instant.

Exit codes: 0 done, 1 a bug (traceback), 2 something the user can mend (one line), 3 the run diverged, 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from rlsp_async import grade
from rlsp_async.errors import DivergedError, MachineError, UserError, disk_is_full
from rlsp_async.keys import add_parser as add_keys

ROLES = {
    "replay": "the hub: ledger, journal, prompts, buffer",
    "sampler": "an inference engine; join as many as you like, from any machine",
    "verifier": "a pool of killable processes that check answers",
    "learner": "model, optimizer, checkpoints, published weights",
}

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
  rlsp demos ops -n 3                                 what the task looks like
  rlsp tasks jsonl path_train=mine.jsonl --report     your own file: sizes, an example, rows that both splits have

on several machines (RUN is a directory that `rlsp run` prepared, on a shared disk or copied):
  rlsp keys    new keys                               once; says which files go where, see docs/operations.md
  rlsp sampler RUN/config.toml replay.address=tcp://hub.example:5555 replay.keys=keys --worker sampler-9

Every setting is `section.key=value`; an unknown key is refused with the nearest known name.
Exit codes: 0 done, 1 a bug (traceback), 2 you can mend it (one line says how), 3 the run diverged, 130 Ctrl-C.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `rlsp`; returns the exit code. A bug rises with its traceback (Python exits with 1)."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # a user's own modules, "mine.reward"; last, so that they shadow nothing
    try:
        code = _code_of(argv)
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        _write_no_more()  # `rlsp report | head`: the reader has gone
        return 0
    except OSError as e:
        if not disk_is_full(e):
            raise
        _write_no_more()  # what was to be said goes to the full disk, too: the code alone says it
        return MachineError.exit_code
    return code


def _code_of(argv: Sequence[str] | None) -> int:
    try:
        return _act(_parse(list(sys.argv[1:] if argv is None else argv)))
    except (UserError, DivergedError) as e:
        print(f"rlsp: {e}", file=sys.stderr)
        return e.exit_code
    except KeyboardInterrupt:
        print("rlsp: stopped by Ctrl-C", file=sys.stderr)
        return 130


def _write_no_more() -> None:
    """Without this Python complains again while it flushes, and exits with 120."""
    sys.stdout = sys.stderr = open("/dev/null", "w")  # noqa: SIM115


# --- arguments -----------------------------------------------------------------------------------------------------


def _parse(argv: list[str]) -> argparse.Namespace:
    """Arguments; `key=value` may stand anywhere after the command, before or after options."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    strange = [text for text in rest if text.startswith("-") or "=" not in text or not hasattr(arguments, "overrides")]
    if strange:
        parser.error(f"{arguments.command} does not know {' '.join(strange)!r}; rlsp {arguments.command} --help")
    if rest:
        arguments.overrides = [*arguments.overrides, *rest]
    return arguments


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rlsp",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Asynchronous off-policy RL post-training of reasoning models (RLSP): "
        "sampling, verifying, remembering and learning as services that never wait for each other.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    train = _with_config(commands, "run", "train: prepare RUNS_DIR/NAME, start the services, watch, report")
    train.add_argument(
        "--resume",
        action="store_true",
        help="CONFIG is the directory of an interrupted run: go on "
        "with its own settings (how many samplers, ports and patience may be changed)",
    )
    _with_config(commands, "check", "resolved settings and what follows from them; needs no GPU and starts nothing")
    for role, text in ROLES.items():
        _with_config(commands, role, f"one service: {text}").add_argument(
            "--worker", metavar="NAME", help=f"its name, unique in the run (default: {role}-0)"
        )
    _add_eval(commands)
    add_keys(commands)
    grade.add_parser(commands)
    report = commands.add_parser("report", help="the results of a run as a table, and RUN/report.html")
    report.add_argument("run", metavar="RUN", help="directory of a run, e.g. runs/ops_cpu")
    report.add_argument("--json", action="store_true", help="the whole report as JSON")
    audit = commands.add_parser("audit", help="check every guarantee of a run from its journal; exit code 1: broken")
    audit.add_argument("run", metavar="RUN", help="directory of a run, or a journal.sqlite; the run may be going on")
    audit.add_argument("--json", action="store_true", help="every finding as JSON")
    _add_chaos(commands)
    _add_tasks(commands)
    _add_offline(commands)
    return parser


def _with_config(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, text: str
) -> argparse.ArgumentParser:
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


def _add_eval(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("eval", help="pass@1 and pass@n of a model directory on a task, with 95 %% intervals")
    parser.add_argument("model", metavar="MODEL", help="Hugging Face directory, e.g. runs/ops_cpu/final")
    parser.add_argument("--task", required=True, metavar="T", help="a task (`rlsp tasks`) or a config whose task it is")
    parser.add_argument("-n", type=int, default=8, metavar="N", help="rollouts of each prompt (default: 8)")
    parser.add_argument("--prompts", type=int, default=256, metavar="N", help="held-out prompts (default: 256)")
    parser.add_argument("--engine", default="auto", choices=["auto", "vllm", "torch"], help="default: auto")
    parser.add_argument("--max-new-tokens", type=int, default=256, metavar="N", help="default: 256")
    parser.add_argument("--temperature", type=float, default=1.0, metavar="X", help="default: 1.0")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")


def _add_tasks(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    demos = commands.add_parser("demos", help="a few demonstrations of a task, readable")
    demos.add_argument("task", metavar="TASK", help="a task (`rlsp tasks`) or a config whose task it is")
    demos.add_argument("-n", type=int, default=5, metavar="N", help="how many (default: 5)")
    tasks = commands.add_parser("tasks", help="the tasks that ship, with an example each; one of them in detail")
    tasks.add_argument("task", metavar="TASK", nargs="?", default="", help="one task, or a config whose task it is")
    tasks.add_argument(
        "--report", action="store_true", help="which training rows repeat held-out ones, and what was removed"
    )
    for parser in (demos, tasks):
        parser.add_argument(
            "overrides",
            metavar="key=value",
            nargs="*",
            default=[],
            help="options of the task, e.g. path_train=train.jsonl limit=100",
        )


def _add_chaos(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from rlsp_async.chaos.show import add_parser  # light: no zmq before the command is understood

    add_parser(commands, _with_config)


def _add_offline(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from rlsp_async.offline import export, importing

    export.add_parser(commands)
    importing.add_parser(commands)


# --- actions -------------------------------------------------------------------------------------------------------


def _act(arguments: argparse.Namespace) -> int:
    match arguments.command:
        case "run":
            from rlsp_async.runner.run import resume, run

            return (resume if arguments.resume else run)(arguments.config, arguments.overrides)
        case "check":
            from rlsp_async.preflight.check import check

            return check(arguments.config, arguments.overrides)
        case "eval":
            from rlsp_async.cli.show import show_evaluation

            return show_evaluation(arguments)
        case "report":
            from rlsp_async.cli.show import show_report

            return show_report(Path(arguments.run), as_json=arguments.json)
        case "audit":
            from rlsp_async.audit.show import show_audit

            return show_audit(Path(arguments.run), as_json=arguments.json)
        case "chaos":
            from rlsp_async.chaos.show import show_chaos

            return show_chaos(arguments)
        case "import":
            from rlsp_async.offline.importing import import_rows

            return import_rows(arguments)
        case "export":
            from rlsp_async.offline.export import export

            return export(arguments)
        case "grade":
            return grade.grade(arguments)
        case "demos":
            from rlsp_async.cli.tasks import show_demonstrations

            return show_demonstrations(arguments.task, arguments.n, arguments.overrides)
        case "tasks":
            from rlsp_async.cli.tasks import show_tasks

            return show_tasks(arguments.task, arguments.overrides, report=arguments.report)
        case "keys":
            from rlsp_async.keys import keys

            return keys(arguments)
        case role:
            _serve(role, arguments)


def _serve(role: str, arguments: argparse.Namespace) -> NoReturn:
    """Runs services/ROLE.py as the main program of this process; it ends the process with its own exit code."""
    from rlsp_async.service import service_path

    worker = ["--worker", arguments.worker] if arguments.worker else []
    sys.argv = [f"rlsp {role}", arguments.config, *arguments.overrides, *worker]
    runpy.run_path(str(service_path(role)), run_name="__main__")
    raise SystemExit(0)


if __name__ == "__main__":
    raise SystemExit(main())
