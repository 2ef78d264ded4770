"""`rlsp tasks` and `rlsp demos`: the tasks that ship, one of them in detail, demonstrations to read."""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import msgspec

from rlsp_async.answers import show_answers
from rlsp_async.cli.arguments import Commands
from rlsp_async.config import TaskConfig, load, tables
from rlsp_async.config.flatten import toml_text
from rlsp_async.config.reference import read_groups
from rlsp_async.errors import ConfigError, DataError, MachineError
from rlsp_async.tasks.base import TASKS, Split, load_task

if TYPE_CHECKING:
    from rlsp_async.messages import Prompt
    from rlsp_async.tasks import base

WIDTH = 100
_SPLITS: tuple[Split, ...] = ("train", "test")


def add_parser(commands: Commands) -> None:
    """The arguments of `rlsp demos` and `rlsp tasks`."""
    demos = commands.add_parser("demos", help="a few demonstrations of a task, readable")
    demos.add_argument("task", metavar="TASK", help="a task (`rlsp tasks`) or a config whose task it is")
    demos.add_argument("-n", type=int, default=5, metavar="N", help="how many (default: 5)")
    demos.set_defaults(function=demos_command)
    tasks = commands.add_parser("tasks", help="the tasks that ship, with an example each; one of them in detail")
    tasks.add_argument("task", metavar="TASK", nargs="?", default="", help="one task, or a config whose task it is")
    tasks.add_argument(
        "--report", action="store_true", help="which training rows repeat held-out ones, and what was removed"
    )
    tasks.set_defaults(function=tasks_command)
    for parser in (demos, tasks):
        parser.add_argument(
            "overrides",
            metavar="key=value",
            nargs="*",
            default=[],
            help="options of the task, e.g. path_train=train.jsonl limit=100",
        )


def tasks_command(arguments: argparse.Namespace) -> int:
    """Prints the tasks that ship, or one of them. Raises UserError."""
    return show_tasks(arguments.task, arguments.overrides, report=arguments.report)


def demos_command(arguments: argparse.Namespace) -> int:
    """Prints demonstrations. Raises UserError."""
    return show_demonstrations(arguments.task, arguments.n, arguments.overrides)


def task_of(text: str, options: Sequence[str] = ()) -> tuple[TaskConfig, int]:
    """The task section and the seed of a run.

    Args:
        text: the name of a task, or a config file ending with .toml.
        options: `key=value` words, which override the options of the config.
    """
    cfg = load(text) if text.endswith(".toml") else None
    section = cfg.task if cfg else TaskConfig(name=text)
    words = tables(list(options))
    return msgspec.structs.replace(section, options={**section.options, **words}), cfg.seed if cfg else 0


def show_tasks(text: str = "", options: Sequence[str] = (), *, report: bool = False, out: TextIO | None = None) -> int:
    """Prints the shipped tasks with an example each, or one task in detail, or its report of repeated rows."""
    out = out or sys.stdout
    if not text:
        if report:
            raise ConfigError("--report needs the name of a task, e.g. rlsp tasks gsm8k --report")
        for name in TASKS.names():
            _print_line(name, out)
        print("\none of them: rlsp tasks NAME [key=value ...]; demonstrations: rlsp demos NAME", file=out)
        return 0
    section, seed = task_of(text, options)
    if report:
        return _show_report(load_task(section, seed), out)
    return _show_one(section, seed, out)


def show_demonstrations(text: str, num: int, options: Sequence[str] = (), out: TextIO | None = None) -> int:
    """Prints prompt, response and reference answer of the first demonstrations; without demonstrations, prompts."""
    if num < 1:
        raise ConfigError(f"-n {num}: at least 1")
    section, seed = task_of(text, options)
    task = load_task(section, seed)
    for index in range(num):
        _print_demonstration(task, index, out or sys.stdout)
    return 0


# --- the list ------------------------------------------------------------------------------------------------------


def _print_line(name: str, out: TextIO) -> None:
    module = TASKS.find(name)
    same = TASKS.aliases.get(name)
    print(f"\n{name:<14} {f'Another name of `{same}`.' if same else _first_line(module)}", file=out)
    needed = _required(module.Config)
    if needed:
        print(f"{'':<14} needs   {', '.join(needed)}", file=out)
        prompt, answer = module.EXAMPLE
    else:
        first = _first_prompt(load_task(TaskConfig(name=name), 0))
        prompt, answer = first.text, show_answers(first.answer)
    print(f"{'':<14} prompt  {_short(prompt)}", file=out)
    print(f"{'':<14} answer  {_short(answer)}", file=out)


def _first_line(module: Any) -> str:
    return (module.__doc__ or "").strip().partition("\n")[0]


def _first_prompt(task: base.Task) -> Prompt:
    """The first prompt of the training split, or of the test split when there is no training split."""
    return task.prompt("train" if task.size("train") != 0 else "test", 0)


def _required(kind: type[Any]) -> list[str]:
    return [field.name for field in msgspec.structs.fields(kind) if field.required]


def _short(text: str) -> str:
    """One line of at most WIDTH characters, without characters that a terminal would interpret."""
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 4]} ..."


# --- one task ------------------------------------------------------------------------------------------------------


def _show_one(section: TaskConfig, seed: int, out: TextIO) -> int:
    module = TASKS.find(section.name)
    missing = [name for name in _required(module.Config) if name not in section.options]
    absent, task = "", None
    if not missing:
        try:
            task = load_task(section, seed)
        except MachineError as e:  # a library is missing; the description can still be shown
            absent = str(e)
    print(f"{section.name}\n\n{inspect.getdoc(module) or ''}\n", file=out)
    _print_options(module.Config, out)
    if task is None:
        print(f"\n{absent or 'sizes and an example: add ' + ' '.join(f'{name}=...' for name in missing)}", file=out)
        return 0
    sizes = {split: task.size(split) for split in _SPLITS}
    print(f"\nverifier  {section.verifier or task.verifier}", file=out)
    print("size      " + ", ".join(f"{split} {'endless' if n is None else n}" for split, n in sizes.items()), file=out)
    prompt = _first_prompt(task)
    print(f"\n--- {prompt.prompt_id}{', ' + prompt.source if prompt.source else ''}", file=out)
    print(f"prompt:    {_safe(prompt.text)}\nreference: {_safe(show_answers(prompt.answer))}", file=out)
    return 0


def _print_options(kind: type[Any], out: TextIO) -> None:
    """Prints each option with its default and its sentence."""
    groups = read_groups(Path(inspect.getfile(kind)).read_text(encoding="utf-8"))
    texts = {one.name: one.text for one in groups[kind.__name__].settings} if kind.__name__ in groups else {}
    print("options (task.options.KEY in a run's TOML, KEY=VALUE here)", file=out)
    for field in msgspec.structs.fields(kind):
        print(f"  {field.name}{' (required)' if field.required else ' = ' + _default(field)}", file=out)
        if texts.get(field.name):
            print(f"      {texts[field.name]}", file=out)


def _default(field: msgspec.structs.FieldInfo) -> str:
    made = isinstance(field.default_factory, type) and field.default_factory in (list, dict)
    value = field.default_factory() if made else field.default
    return toml_text(value)


def _show_report(task: base.Task, out: TextIO) -> int:
    from rlsp_async.tasks.overlap import report_lines
    from rlsp_async.tasks.row_task import RowTask

    if not isinstance(task, RowTask):
        print(f"{task.name}: its prompts are no rows of a file; the task itself decides what is held out", file=out)
        return 0
    for line in report_lines(task.overlap(), task.name):
        print(_safe(line), file=out)
    return 0


# --- demonstrations ------------------------------------------------------------------------------------------------


def _print_demonstration(task: base.Task, index: int, out: TextIO) -> None:
    try:
        prompt, response = task.demonstration(index)
    except DataError as e:
        split: Split = "train" if task.size("train") != 0 else "test"
        if index == 0:
            print(f"({e})\n", file=out)
        elif index >= (task.size(split) or index + 1):
            return
        prompt, response = task.prompt(split, index), ""
    print(f"--- {prompt.prompt_id}", file=out)
    print(f"prompt:    {_safe(prompt.text)}", file=out)
    if response:
        print(f"response:  {_safe(response)}", file=out)
    print(f"reference: {_safe(show_answers(prompt.answer))}\n", file=out)


def _safe(text: str) -> str:
    """Keeps line breaks; other characters that a terminal would interpret become blanks."""
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)
