"""`rlsp import FILE --run CONFIG`: rollouts or demonstrations for the stages with source = "imported".

    {"prompt": "2 + 2 =", "response": "4"}                                      a demonstration
    {"prompt": "2 + 2 =", "response": "5", "answer": "4", "status": "wrong"}    a judged rollout; or "reward": 0.0
    {..., "prompt_ids": [..], "token_ids": [..], "logprobs": [..]}              with the behaviour's log-probs
    {..., "group": 17}                                                          --group-by group: rollouts of one group

That is what `rlsp export` writes; the rows may come as JSON lines, JSON, CSV, Parquet or Arrow. RUN is prepared if it
is not there; the rows are encoded with its tokenizer, checked, with --verify judged by its verifier, and written to
RUN/imported.jsonl, whole or not at all; several imports add up. A run that has begun takes no more.
"""

from __future__ import annotations

import math
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from rlsp_async import tokens
from rlsp_async.audit.history import History
from rlsp_async.config import RunConfig, load
from rlsp_async.errors import ConfigError, DataError, unwritable
from rlsp_async.messages import Prompt, Verdict, VerdictStatus
from rlsp_async.model import planned_model
from rlsp_async.offline.grouping import EncodedRow, grouped
from rlsp_async.replay.sources import FILE, ImportedGroup, ImportedRollout
from rlsp_async.tasks.readers import Row, read_rows, text_field

TRUE: tuple[VerdictStatus, ...] = ("correct", "wrong", "unparsable")


def import_rows(file: Path, config: str, overrides: list[str], *, group_by: str = "", verify: bool = False) -> int:
    """Prepares the run when it is not there, checks the rows, writes them.

    Args:
        file: rows as `rlsp export` writes them.
        config, overrides: the run, as in `rlsp run`.
        group_by: a field whose equal values make a group; empty: every row alone.
        verify: judge the responses here, with the task's verifier.

    Returns: the exit code 0.
    Raises: UserError; the rows of the run are then as they were.
    """
    from rlsp_async.runner.resume import is_run, require_same
    from rlsp_async.runner.run import prepare, resolve

    cfg = resolve(load(config, overrides))
    if all(stage.source != "imported" for stage in cfg.stages.values()):
        raise ConfigError(f'{config}: no stage has source = "imported": nothing would train on the rows')
    if has_begun(cfg.directory / "journal.sqlite"):
        raise ConfigError(f"{cfg.directory} has begun: what it trains on stays as it is; choose another name=...")
    if is_run(cfg.directory):
        require_same(cfg, cfg.directory)
    else:
        prepare(cfg)
    counts: Counter[str] = Counter()
    num, total = write(cfg, file, group_by, verify, counts)
    print(f"rlsp import: {num} rows of {file}; {cfg.directory / FILE} holds {total} groups", file=sys.stderr)
    for text in about(counts):
        print(f"rlsp import: {text}", file=sys.stderr)
    return 0


def about(counts: Counter[str]) -> Iterator[str]:
    """What the verifier and the grouping made of the rows, one sentence each."""
    if judged := counts.total() - counts["lonely"] - counts["differs"]:
        shown = ", ".join(f"{counts[status]} {status}" for status in (*TRUE, "left out") if counts[status])
        yield f"{judged} responses judged here: {shown}"
    if counts["left out"]:
        yield (
            f"{counts['left out']} responses were left out: the verifier timed out or failed on them, and no "
            "verdict is made up"
        )
    if counts["differs"]:
        yield f"{counts['differs']} verdicts differ from the file's; those made here count"
    if counts["lonely"]:
        yield f"{counts['lonely']} groups hold a single rollout: for them a group's baseline says nothing"


def has_begun(journal: Path) -> bool:
    """Whether a group was ever issued: a run that only failed to start may still be given its rows."""
    if not journal.exists():
        return False
    history = History(journal)
    try:
        return bool(history.rows("SELECT 1 FROM groups LIMIT 1"))
    finally:
        history.close()


def write(
    cfg: RunConfig, source: Path, group_by: str = "", verify: bool = False, counts: Counter[str] | None = None
) -> tuple[int, int]:
    """Adds the rows of a file to RUN/imported.jsonl; (rows added, groups there now). Raises DataError."""
    counts = Counter() if counts is None else counts
    target = cfg.directory / FILE
    part, num, total = target.with_suffix(".part"), 0, 0
    try:
        if target.exists():
            shutil.copyfile(target, part)
        with part.open("ab") as file:
            for group in _groups(cfg, source, group_by, verify, counts):
                file.write(msgspec.json.encode(group) + b"\n")
                num += len(group.rollouts)
                counts["lonely"] += bool(group_by) and len(group.rollouts) == 1
            if not num:
                raise DataError(f"{source}: nothing is left to train on")
            file.flush()
            os.fsync(file.fileno())
        with part.open("rb") as file:
            total = sum(1 for _ in file)
        os.replace(part, target)
    except OSError as e:
        raise unwritable(target, e) from None
    finally:
        part.unlink(missing_ok=True)
    return num, total


def _groups(cfg: RunConfig, source: Path, group_by: str, verify: bool, counts: Counter[str]) -> Iterator[ImportedGroup]:
    judged = _is_judged(cfg.directory / FILE)
    if judged is False and verify:
        raise DataError(
            f"{cfg.directory / FILE} holds rows without a verdict: a batch is judged or it is not; import "
            "into another run"
        )
    rows = encoded(cfg, source, group_by, verify)
    groups = grouped(rows if verify else _alike(rows, judged), cfg.sampling.rollouts)
    if not verify:
        return groups
    from rlsp_async.offline.judging import judged_here

    return judged_here(cfg, groups, counts)


def _is_judged(target: Path) -> bool | None:
    if not target.exists():
        return None
    with target.open("rb") as file:
        return msgspec.json.decode(file.readline(), type=ImportedGroup).rollouts[0].verdict is not None


def _alike(rows: Iterator[EncodedRow], judged: bool | None) -> Iterator[EncodedRow]:
    """The rows; raises DataError at the first that is judged where others are not."""
    for row in rows:
        judged = row.rollout.verdict is not None if judged is None else judged
        if judged != (row.rollout.verdict is not None):
            raise DataError(
                f"{row.where}: {'has no' if judged else 'has a'} status or reward, unlike "
                "the rows before it: a batch is judged or it is not; import them into two runs"
            )
        yield row


def encoded(cfg: RunConfig, source: Path, group_by: str = "", verify: bool = False) -> Iterator[EncodedRow]:
    """The rows of a file, checked. Raises DataError with FILE:LINE."""
    tokenizer, shape = tokens.load_tokenizer(cfg.directory / "model"), planned_model(cfg)
    for line, fields in read_rows(source):
        where = f"{source}:{line}"
        row = {name: value for name, value in fields.items() if value is not None}  # tables have every column
        if verify:
            text_field(row, "answer", where, empty_ok=True)
        prompt = Prompt(
            prompt_id=f"imported/{source.name}/{line}",
            task=cfg.task.name,
            source=f"{source.name}:{line}",
            text=text_field(row, "prompt", where),
            answer=str(row.get("answer", "")),
            chat=row.get("chat") is True,
            system=str(row.get("system", "")),
            selector="imported",
        )
        response = text_field(row, "response", where, empty_ok="token_ids" in row)
        logprobs = _logprobs(row, where)
        if "token_ids" in row:
            prompt_ids, token_ids = (
                _ids(row, "prompt_ids", len(tokenizer), where),
                _ids(row, "token_ids", len(tokenizer), where),
            )
        else:
            prompt_ids = tokens.encode_prompt(tokenizer, prompt).tolist()
            token_ids = tokens.encode_response(tokenizer, response).tolist()
        if logprobs and len(logprobs) != len(token_ids):
            raise DataError(f"{where}: {len(logprobs)} logprobs for {len(token_ids)} token_ids")
        if shape and len(prompt_ids) + len(token_ids) > shape.context:
            raise DataError(
                f"{where}: {len(prompt_ids)} and {len(token_ids)} tokens do not fit the model's window of "
                f"{shape.context}; leave the row out"
            )
        yield EncodedRow(
            where=where,
            key=text_field(row, group_by, where) if group_by else "",
            prompt=prompt,
            prompt_ids=prompt_ids,
            rollout=ImportedRollout(
                response=response, token_ids=token_ids, logprobs=logprobs, verdict=verdict_of(row, where)
            ),
        )


def verdict_of(row: Row, where: str) -> Verdict | None:
    """From `status` (and `parts`) or `reward`; None when there is neither. Raises DataError for what is no verdict."""
    status, reward = row.get("status"), row.get("reward")
    if status is None and reward is None:
        return None
    if status is None:
        x = _number(reward, f"{where}: reward")
        return Verdict(
            status="correct" if x >= 1 else "wrong", verifier="imported", parts={"correct": float(x >= 1), "score": x}
        )
    known: VerdictStatus | None = next((one for one in TRUE if one == status), None)
    if known is None:
        raise DataError(f"{where}: status {status!r} is no verdict on the answer; it must be one of {', '.join(TRUE)}")
    parts = row.get("parts", {"correct": float(status == "correct")})
    if not isinstance(parts, dict):
        raise DataError(f"{where}: parts must be an object of numbers")
    return Verdict(
        status=known,
        verifier="imported",
        parts={
            str(name): _number(value, f"{where}: parts.{name}") for name, value in parts.items() if value is not None
        },
    )


def _logprobs(row: Row, where: str) -> list[float]:
    if row.get("logprobs") is None:
        return []
    if "token_ids" not in row or "prompt_ids" not in row:
        raise DataError(f"{where}: logprobs need prompt_ids and token_ids: text is not tokenized the same way twice")
    if row.get("temperature", 1.0) != 1.0:
        raise DataError(f"{where}: its logprobs are of temperature {row['temperature']}; only those of 1 can be used")
    if not isinstance(row["logprobs"], list):
        raise DataError(f"{where}: logprobs must be a list of numbers")
    return [_number(value, f"{where}: logprobs") for value in row["logprobs"]]


def _ids(row: Row, field: str, vocabulary: int, where: str) -> list[int]:
    ids: Any = row.get(field)
    if not isinstance(ids, list) or not ids or not all(type(one) is int and 0 <= one < vocabulary for one in ids):
        raise DataError(f"{where}: {field} must be a list of ids from 0 to {vocabulary - 1}, the run's vocabulary")
    return ids


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise DataError(f"{where} must be a finite number, not {value!r}")
    return float(value)
