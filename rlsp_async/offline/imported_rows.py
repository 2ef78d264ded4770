"""Rows of a file as groups for training: encoded with the run's tokenizer, checked, and grouped by a key.

A row is either a demonstration or a judged rollout; `importing.py` shows the fields. Every fault is one sentence that
names the file and the line.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import numpy as np

from rlsp_async import tokens
from rlsp_async.answers import join_answers
from rlsp_async.columns import pack_floats, pack_ints
from rlsp_async.config import RunConfig
from rlsp_async.contents import check_turns
from rlsp_async.errors import DataError
from rlsp_async.messages import Prompt, Rollout, Verdict, VerdictStatus
from rlsp_async.model import planned_model
from rlsp_async.observations import OBSERVED
from rlsp_async.replay.sources import ImportedGroup, ImportedRollout
from rlsp_async.tasks.conversation import is_conversation, read_conversation, read_response
from rlsp_async.tasks.readers import Row, read_rows, text_field, text_fields, value_field

TRUE: tuple[VerdictStatus, ...] = ("correct", "wrong", "unparsable")
"""The statuses that say something about the answer."""


PAIR = "group of the pair"
"""Field that the two rows of a preference share."""


class EncodedRow(NamedTuple):
    """One row of a file, encoded and checked."""

    where: str
    """FILE:LINE, for errors."""
    key: str
    """Rows with the same key form groups; empty: the row is a group of its own."""
    prompt: Prompt
    prompt_ids: list[int]
    rollout: ImportedRollout


def encode_rows(
    cfg: RunConfig, source: Path, group_by: str = "", verify: bool = False, counts: Counter[str] | None = None
) -> Iterator[EncodedRow]:
    """The rows of a file, encoded with the run's tokenizer and checked.

    Args:
        cfg: the settings of the run, whose directory is prepared.
        source: a file of rows.
        group_by: the field with the group key; empty: rows have no key.
        verify: the responses will be judged here, so each row must have a reference answer.
        counts: is added to: "too long", rows that task.too_long leaves out because they exceed the model's window.

    Raises:
        DataError: a row that cannot be used, with FILE:LINE.
    """
    counts = Counter() if counts is None else counts
    tokenizer, shape = tokens.load_tokenizer(cfg.directory / "model"), planned_model(cfg)
    for line, where, row in _rows(source):
        if verify and not isinstance(row.get("answer"), list):
            text_field(row, "answer", where, empty_ok=True)
        prompt = _prompt(cfg, row, source, line, where)
        response = _response(row, where)
        logprobs = _logprobs(row, where)
        if "token_ids" in row:
            prompt_ids, token_ids = (
                _ids(row, "prompt_ids", len(tokenizer), where),
                _ids(row, "token_ids", len(tokenizer), where),
            )
        else:
            prompt_ids = tokens.encode_prompt(tokenizer, prompt, cfg.task.template_options).tolist()
            token_ids = tokens.encode_response(tokenizer, response).tolist()
        turns, observed = _turns(row, len(token_ids), where)
        if logprobs and len(logprobs) != len(token_ids):
            raise DataError(f"{where}: {len(logprobs)} logprobs for {len(token_ids)} token_ids")
        if shape and len(prompt_ids) + len(token_ids) > shape.context:
            if cfg.task.too_long != "refuse":
                counts["too long"] += 1
                continue
            raise DataError(
                f"{where}: {len(prompt_ids)} and {len(token_ids)} tokens do not fit the model's window of "
                f'{shape.context}; leave the row out, or set task.too_long = "drop"'
            )
        yield EncodedRow(
            where=where,
            key=text_field(row, group_by, where) if group_by else str(row.get(PAIR, "")),
            prompt=prompt,
            prompt_ids=prompt_ids,
            rollout=ImportedRollout(
                response=response,
                token_ids=token_ids,
                logprobs=logprobs,
                verdict=read_verdict(row, where),
                turns=turns,
                observed=observed,
            ),
        )


def _rows(source: Path) -> Iterator[tuple[int, str, Row]]:
    """The rows of a file as (line, FILE:LINE, row); a pair of a chosen and a rejected response as two rows."""
    for line, fields in read_rows(source):
        where = f"{source}:{line}"
        row = {
            name: value for name, value in fields.items() if value is not None
        }  # tables have all columns in all rows
        if "response" not in row and {"chosen", "rejected"} <= set(row):
            for one in pair_rows(row, line, where):
                yield line, where, one
        else:
            yield line, where, row


def pair_rows(row: Row, line: int, where: str) -> Iterator[Row]:
    """A preference (prompt, chosen, rejected) as two judged rows of one group: reward 1 and reward 0.

    `chosen` and `rejected` are texts, or lists of chat messages: the assistant's alone, or the whole conversation,
    which is then the same up to its last message and stands for the prompt. Raises DataError for other forms.
    """
    chosen, rejected = row["chosen"], row["rejected"]
    prompt = {}
    if is_conversation(chosen) and is_conversation(rejected) and len(chosen) > 1:
        if chosen[:-1] != rejected[:-1]:
            raise DataError(f"{where}: chosen and rejected are conversations that differ before their last message")
        prompt = {"prompt": chosen[:-1]}
        chosen, rejected = chosen[-1:], rejected[-1:]
    rest = {name: value for name, value in row.items() if name not in ("chosen", "rejected")}
    for response, reward in ((chosen, 1.0), (rejected, 0.0)):
        yield {**rest, **prompt, "response": response, "reward": reward, PAIR: f"pair {line}"}


def _prompt(cfg: RunConfig, row: Row, source: Path, line: int, where: str) -> Prompt:
    value = value_field(row, "prompt", where)
    asked = read_conversation(value, f"{where}: field 'prompt'") if is_conversation(value) else None
    try:
        answer = join_answers(text_fields(row, "answer", where)) if isinstance(row.get("answer"), list) else ""
    except ValueError as e:
        raise DataError(f"{where}: field 'answer': {e}") from None
    return Prompt(
        prompt_id=f"imported/{source.name}/{line}",
        task=cfg.task.name,
        source=f"{source.name}:{line}",
        text=asked.text if asked else text_field(row, "prompt", where),
        answer=answer or str(row.get("answer", "")),
        chat=asked is not None or row.get("chat") is True,
        system=(asked.system if asked else "") or str(row.get("system", "")),
        earlier=asked.earlier if asked else [],
        selector="imported",
    )


def _response(row: Row, where: str) -> str:
    """The response of a row; a file for SFT may call it `completion`."""
    field = "completion" if "response" not in row and "completion" in row else "response"
    if is_conversation(row.get(field)):
        return read_response(row[field], f"{where}: field {field!r}")
    return text_field(row, field, where, empty_ok="token_ids" in row)


def read_verdict(row: Row, where: str) -> Verdict | None:
    """The verdict in a row: from `status` (and `parts`) or from `reward`; None when the row has neither.

    Raises DataError for other values.
    """
    status, reward = row.get("status"), row.get("reward")
    if status is None and reward is None:
        return None
    if status is None:
        x = _number(reward, f"{where}: reward")
        return Verdict(
            status="correct" if x >= 1 else "wrong", verifier="imported", parts={"correct": float(x >= 1), "score": x}
        )
    known: VerdictStatus | None = next((true for true in TRUE if true == status), None)
    if known is None:
        raise DataError(
            f"{where}: status {status!r} is not a verdict on the answer; it must be one of {', '.join(TRUE)}"
        )
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
        raise DataError(f"{where}: logprobs need prompt_ids and token_ids: the text may be tokenized differently")
    if row.get("temperature", 1.0) != 1.0:
        raise DataError(
            f"{where}: its logprobs are of temperature {row['temperature']}; only logprobs at temperature 1 can be used"
        )
    if not isinstance(row["logprobs"], list):
        raise DataError(f"{where}: logprobs must be a list of numbers")
    return [_number(value, f"{where}: logprobs") for value in row["logprobs"]]


def _turns(row: Row, num_tokens: int, where: str) -> tuple[list[int], list[int]]:
    """Where turns begin, and which tokens an environment said (version -1), of a row that has several turns."""
    turns, versions = row.get("turns"), row.get("versions")
    if not turns and row.get("num_turns", 1) == 1:
        return [], []
    if "token_ids" not in row or not _are_ints(turns) or not _are_ints(versions) or len(versions) != num_tokens:
        raise DataError(
            f"{where}: a response of several turns needs token_ids, turns and versions, as `rlsp export --tokens` "
            "writes them: else what its environment said would be trained"
        )
    observed = [at for at, version in enumerate(versions) if version == OBSERVED]
    marks = Rollout(
        index=0,
        token_ids=pack_ints(np.zeros(num_tokens)),
        logprobs=pack_floats(np.zeros(num_tokens)),
        versions=pack_ints(versions),
        text="",
        turns=pack_ints(turns),
    )
    check_turns(where, marks)
    return turns, observed


def _are_ints(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and bool(value) and all(type(x) is int and abs(x) < 2**31 for x in value)


def _ids(row: Row, field: str, vocabulary: int, where: str) -> list[int]:
    ids: Any = row.get(field)
    if not isinstance(ids, list) or not ids or not all(type(id_) is int and 0 <= id_ < vocabulary for id_ in ids):
        raise DataError(f"{where}: {field} must be a list of ids from 0 to {vocabulary - 1}, the run's vocabulary")
    return ids


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise DataError(f"{where} must be a finite number, not {value!r}")
    return float(value)


# --- groups -----------------------------------------------------------------------------------------------------------


def group_rows(rows: Iterable[EncodedRow], most: int) -> Iterator[ImportedGroup]:
    """Rows with the same key as groups of at most `most` rollouts, as sampled groups are.

    Rows without a key come first, each as a group of its own. Groups with a key follow in the order of their first
    rows; more than `most` rows with one key are cut into groups that differ by one rollout at most. All rows with a key
    are held in memory. Raises DataError when two rows with one key answer different prompts.
    """
    by_key: dict[str, list[EncodedRow]] = {}
    for row in rows:
        if row.key:
            members = by_key.setdefault(row.key, [])
            members.append(row)
            _require_same(members[0], row)
        else:
            yield _group([row])
    for members in by_key.values():
        num_groups = -(-len(members) // most)
        ends = [len(members) * i // num_groups for i in range(num_groups + 1)]
        yield from (_group(members[a:b]) for a, b in pairwise(ends))


def _group(rows: list[EncodedRow]) -> ImportedGroup:
    return ImportedGroup(prompt=rows[0].prompt, prompt_ids=rows[0].prompt_ids, rollouts=[row.rollout for row in rows])


def _require_same(first: EncodedRow, row: EncodedRow) -> None:
    here, there = ((p.text, p.answer, p.chat, p.system, p.earlier) for p in (row.prompt, first.prompt))
    if here != there or row.prompt_ids != first.prompt_ids:
        raise DataError(
            f"{row.where}: it shares its group {row.key!r} with {first.where}, and has another prompt or "
            "answer; group by a field that tells prompts apart"
        )
