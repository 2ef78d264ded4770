"""`rlsp export RUN --what rollouts|demonstrations`: what the journal holds, as JSON lines or Parquet.

    rollouts         one row for each rollout of a judged training group: prompt, answer, response, status, reward
                     parts, origin; with --tokens also token ids and log-probs, which `rlsp import` accepts
    demonstrations   {"prompt", "answer", "response"} of every correct rollout, for the task `jsonl`

Tokens that no checkpoint can need are pruned (`replay.retention`), and pruned rollouts cannot be exported. Set
retention = "all" before a run whose rollouts are wanted. Reading does not disturb a run that goes on.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

import msgspec

from rlsp_async.answers import split_answers
from rlsp_async.audit.history import GroupRow, History, decoded
from rlsp_async.columns import floats, ints
from rlsp_async.errors import DataError, MachineError, unwritable
from rlsp_async.messages import Rollout, RolloutGroup, Verdict
from rlsp_async.observations import num_turns


def export_rows(
    run: Path,
    *,
    what: str = "rollouts",
    stage: str = "",
    tokens: bool = False,
    path_out: str = "",
    out: TextIO | None = None,
) -> int:
    """Writes the rows. Reports on stderr how many rows there are and how many groups were pruned.

    Args:
        run: directory of a run, or a journal; the run may be going on.
        what: "rollouts" or "demonstrations".
        stage: only rows of this stage; empty: rows of all stages.
        tokens: whether to include token ids, log-probs and versions.
        path_out: a file to write, as Parquet when its name ends with .parquet; empty: write to `out`.
        out: a stream; None: stdout.

    Returns:
        The exit code 0.

    Raises:
        DataError: unknown stage, a group that cannot be decoded, or a Parquet table without rows.
        MachineError: the file cannot be written, or pyarrow is missing.
    """
    history = History(run)
    try:
        rows = _WantedRows(history, what, stage, tokens)
        if path_out.endswith(".parquet"):
            _write_parquet(rows, run, path_out)
        elif path_out:
            try:
                with open(path_out, "w", encoding="utf-8") as file:
                    _print(rows, file)
            except OSError as e:
                raise unwritable(Path(path_out), e) from None
        else:
            _print(rows, out or sys.stdout)
    finally:
        history.close()
    pruned = f"; the tokens of {rows.num_pruned} more groups were pruned (replay.retention)" if rows.num_pruned else ""
    print(f"rlsp export: {rows.num} {what}{pruned}", file=sys.stderr)
    return 0


def rollout_rows(run: Path, *, stage: str = "", tokens: bool = False) -> Iterator[dict[str, Any]]:
    """The rollouts that the journal of a run still holds, one row each, as `export_rows` writes them.

    Args:
        run: directory of a run; the run may be going on.
        stage: rows of this stage only; empty: of all.
        tokens: token ids, log-probs and versions as well.

    Yields: rows with the keys prompt, answer, response, status, parts, prompt_id, group, rollout, stage, finish, ...
    Raises: DataError when the directory is no run or has no such stage.
    """
    with contextlib.closing(History(run)) as history:
        yield from _WantedRows(history, "rollouts", stage, tokens)


class _WantedRows:
    """Iterates over the wanted rows once, and counts them."""

    def __init__(self, history: History, what: str, stage: str, tokens: bool) -> None:
        """Raises DataError when the run has no such stage."""
        if stage and stage not in history.cfg.stages:
            raise DataError(f"{history.directory} has no stage {stage!r}; there is {', '.join(history.cfg.stages)}")
        self._history, self._what, self._stage, self._tokens = history, what, stage, tokens
        self.num = self.num_pruned = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for group in self._history.groups():
            if _is_wanted(group, self._stage):
                self.num_pruned += group.body is None
                for row in rows_of_group(group, self._what, tokens=self._tokens):
                    self.num += 1
                    yield row


def _print(rows: Iterable[dict[str, Any]], out: TextIO) -> None:
    for row in rows:
        print(msgspec.json.encode(row).decode(), file=out)


def _write_parquet(rows: Iterable[dict[str, Any]], run: Path, path_out: str) -> None:
    """Writes one table. Raises MachineError without pyarrow, or where the file cannot be written."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise MachineError(f"{path_out}: Parquet needs pyarrow; pip install 'rlsp_async[parquet]'") from None
    table = list(rows)
    if not table:
        raise DataError(f"{run} holds no such rows: no table was written")
    for row in table:
        if not row.get("parts", True):
            del row["parts"]  # Parquet has no objects without fields
    try:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table), path_out)
    except OSError as e:
        raise unwritable(Path(path_out), e) from None


def _is_wanted(row: GroupRow, stage: str) -> bool:
    judged = row.is_rollouts and row.num_verdicts > 0
    return row.purpose == "train" and judged and (not stage or row.stage == stage)


def rows_of_group(row: GroupRow, what: str, *, tokens: bool = False) -> Iterator[dict[str, Any]]:
    """The rows of one group; none when the group's tokens were pruned. Raises DataError when it cannot be decoded."""
    _, group, verdicts, damage = decoded(row)
    if damage:
        raise DataError(f"group {row.group_id} cannot be decoded: {damage}; to see all that is wrong: rlsp audit")
    if group is None or verdicts is None:
        return
    for rollout, verdict in zip(group.rollouts, verdicts, strict=True):
        if what == "demonstrations" and (verdict.status != "correct" or rollout.finish != "stop" or rollout.parent):
            continue  # a verification (replay/spawn.py) answers another question than the task's
        fields = _prompt_fields(group) | {"response": rollout.text}
        if what == "rollouts":
            fields |= _rollout_fields(group, rollout, verdict)
        yield fields | (_token_columns(group, rollout) if tokens else {})


def _prompt_fields(group: RolloutGroup) -> dict[str, Any]:
    prompt = group.prompt
    chat = {"chat": True, "system": prompt.system} if prompt.chat else {}
    acceptable = split_answers(prompt.answer)
    said = [{"role": one.role, "content": one.text} for one in prompt.earlier]
    return {
        "prompt": [*said, {"role": "user", "content": prompt.text}] if said else prompt.text,
        "answer": acceptable if len(acceptable) > 1 else prompt.answer,
        **chat,
    }


def _rollout_fields(group: RolloutGroup, rollout: Rollout, verdict: Verdict) -> dict[str, Any]:
    parent = {"parent": rollout.parent} if rollout.parent else {}
    return {
        "status": verdict.status,
        "parts": verdict.parts,
        "prompt_id": group.prompt.prompt_id,
        "group": group.group_id,
        "rollout": rollout.index,
        "stage": group.stage,
        "finish": rollout.finish,
        **_environment_fields(rollout),
        "temperature": group.sampling.temperature,
        "propensity": group.prompt.propensity,
        **parent,
    }


def _token_columns(group: RolloutGroup, rollout: Rollout) -> dict[str, Any]:
    return {
        "prompt_ids": ints(group.prompt_ids).tolist(),
        "token_ids": ints(rollout.token_ids).tolist(),
        "logprobs": floats(rollout.logprobs).tolist(),
        "versions": ints(rollout.versions).tolist(),
        **({"turns": ints(rollout.turns).tolist()} if rollout.turns else {}),
    }


def _environment_fields(rollout: Rollout) -> dict[str, Any]:
    """How an environment's rollout went; nothing for others."""
    if not rollout.ended:
        return {}
    claim = {"claim": rollout.claim} if rollout.claim else {}
    return {"num_turns": num_turns(rollout), "ended": rollout.ended, **claim}
