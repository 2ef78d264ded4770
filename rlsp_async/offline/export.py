"""`rlsp export RUN --what rollouts|demonstrations`: what the journal still holds, as JSON lines or Parquet.

    rollouts         one line a rollout of a judged training group: prompt, answer, response, status, reward parts,
                     where it comes from; with --tokens its ids and log-probs too, so that `rlsp import` takes them
    demonstrations   {"prompt", "answer", "response"} of every correct rollout: what the task `jsonl` reads

Tokens that no checkpoint can need are pruned (`replay.retention`), and what is pruned cannot be exported: set
retention = "all" before a run whose rollouts are wanted. Reading does not disturb a run that goes on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import msgspec

from rlsp_async.audit.history import GroupRow, History, decoded
from rlsp_async.columns import floats, ints
from rlsp_async.errors import DataError, MachineError, unwritable
from rlsp_async.messages import Rollout, RolloutGroup, Verdict


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """`rlsp export`."""
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


def export(arguments: argparse.Namespace, out: TextIO | None = None) -> int:
    """Prints the lines; how many there were, and how many groups were pruned, goes to stderr."""
    if arguments.out.endswith(".parquet"):
        return _write_parquet(arguments)
    if arguments.out:
        try:
            with open(arguments.out, "w", encoding="utf-8") as file:
                return _print(arguments, file)
        except OSError as e:
            raise unwritable(Path(arguments.out), e) from None
    return _print(arguments, out or sys.stdout)


def _print(arguments: argparse.Namespace, out: TextIO) -> int:
    def write(line: dict[str, Any]) -> None:
        print(msgspec.json.encode(line).decode(), file=out)

    return _each(arguments, write)


def _write_parquet(arguments: argparse.Namespace) -> int:
    """One table. Raises MachineError without pyarrow, or where the file cannot be written."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise MachineError(f"{arguments.out}: Parquet needs pyarrow; pip install 'rlsp_async[parquet]'") from None
    rows: list[dict[str, Any]] = []
    code = _each(arguments, rows.append)
    if not rows:
        raise DataError(f"{arguments.run} holds none of these rows: no table was written")
    for row in rows:
        if not row.get("parts", True):
            del row["parts"]  # Parquet knows no object without fields
    try:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), arguments.out)
    except OSError as e:
        raise unwritable(Path(arguments.out), e) from None
    return code


def _each(arguments: argparse.Namespace, write: Callable[[dict[str, Any]], None]) -> int:
    """Every wanted line, to `write`."""
    history = History(Path(arguments.run))
    num_rows = num_pruned = 0
    try:
        if arguments.stage and arguments.stage not in history.cfg.stages:
            raise DataError(
                f"{arguments.run} has no stage {arguments.stage!r}; there is {', '.join(history.cfg.stages)}"
            )
        for row in history.groups():
            if not _is_wanted(row, arguments.stage):
                continue
            num_pruned += row.body is None
            for line in lines(row, arguments.what, tokens=arguments.tokens):
                write(line)
                num_rows += 1
    finally:
        history.close()
    pruned = f"; the tokens of {num_pruned} more groups were pruned (replay.retention)" if num_pruned else ""
    print(f"rlsp export: {num_rows} {arguments.what}{pruned}", file=sys.stderr)
    return 0


def _is_wanted(row: GroupRow, stage: str) -> bool:
    judged = row.is_rollouts and row.num_verdicts > 0
    return row.purpose == "train" and judged and (not stage or row.stage == stage)


def lines(row: GroupRow, what: str, *, tokens: bool = False) -> Iterator[dict[str, Any]]:
    """The lines of one group; none when its tokens are gone. Raises DataError when it cannot be decoded."""
    _, group, verdicts, damage = decoded(row)
    if damage:
        raise DataError(f"group {row.group_id} cannot be decoded: {damage}; to see all that is wrong: rlsp audit")
    if group is None or verdicts is None:
        return
    for rollout, verdict in zip(group.rollouts, verdicts, strict=True):
        if what == "demonstrations" and (verdict.status != "correct" or rollout.finish != "stop" or rollout.parent):
            continue  # a verification (replay/spawn.py) answers another question than the task's
        line = _asked(group) | {"response": rollout.text}
        if what == "rollouts":
            line |= _judged(group, rollout, verdict)
        yield line | (_columns(group, rollout) if tokens else {})


def _asked(group: RolloutGroup) -> dict[str, Any]:
    prompt = group.prompt
    chat = {"chat": True, "system": prompt.system} if prompt.chat else {}
    return {"prompt": prompt.text, "answer": prompt.answer, **chat}


def _judged(group: RolloutGroup, rollout: Rollout, verdict: Verdict) -> dict[str, Any]:
    parent = {"parent": rollout.parent} if rollout.parent else {}
    return {
        "status": verdict.status,
        "parts": verdict.parts,
        "prompt_id": group.prompt.prompt_id,
        "group": group.group_id,
        "rollout": rollout.index,
        "stage": group.stage,
        "finish": rollout.finish,
        "temperature": group.sampling.temperature,
        "propensity": group.prompt.propensity,
        **parent,
    }


def _columns(group: RolloutGroup, rollout: Rollout) -> dict[str, Any]:
    return {
        "prompt_ids": ints(group.prompt_ids).tolist(),
        "token_ids": ints(rollout.token_ids).tolist(),
        "logprobs": floats(rollout.logprobs).tolist(),
        "versions": ints(rollout.versions).tolist(),
    }
