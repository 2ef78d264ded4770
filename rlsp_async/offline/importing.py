"""`rlsp import FILE.jsonl --run CONFIG`: rollouts or demonstrations for the stages with source = "imported".

    {"prompt": "2 + 2 =", "response": "4"}                                      a demonstration
    {"prompt": "2 + 2 =", "response": "5", "answer": "4", "status": "wrong"}    a judged rollout; or "reward": 0.0
    {..., "prompt_ids": [..], "token_ids": [..], "logprobs": [..]}              with the behaviour's log-probs

That is what `rlsp export` prints. RUN is prepared if it is not there; the rows are encoded with its tokenizer, checked,
and written to RUN/imported.jsonl, whole or not at all; several imports add up. A run that has begun takes no more.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from rlsp_async import tokens
from rlsp_async.audit.history import History
from rlsp_async.config import RunConfig, load
from rlsp_async.errors import ConfigError, DataError, unwritable
from rlsp_async.messages import Prompt, Verdict, VerdictStatus
from rlsp_async.observe import estimate
from rlsp_async.replay.imported import FILE, ImportedRow
from rlsp_async.tasks.rows import Row, read_rows, text_field

TRUE: tuple[VerdictStatus, ...] = ("correct", "wrong", "unparsable")


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """`rlsp import`."""
    parser = commands.add_parser("import", help="rollouts or demonstrations from JSON lines, for a run to train on")
    parser.add_argument("file", metavar="FILE.jsonl", help="as `rlsp export` prints them (also .jsonl.gz)")
    parser.add_argument("--run", required=True, metavar="CONFIG", dest="config",
                        help="the run's TOML file; its directory is prepared if it is not there")
    parser.add_argument("overrides", metavar="key=value", nargs="*", default=[], help="as in `rlsp run`")


def import_rows(arguments: argparse.Namespace) -> int:
    """Prepares, checks, writes. Raises UserError and leaves the rows of the run as they were."""
    from rlsp_async.resume import is_run, require_same
    from rlsp_async.run import prepare, resolve

    cfg = resolve(load(arguments.config, arguments.overrides))
    if all(stage.source != "imported" for stage in cfg.stages.values()):
        raise ConfigError(f'{arguments.config}: no stage has source = "imported": nothing would train on the rows')
    if has_begun(cfg.directory / "journal.sqlite"):
        raise ConfigError(f"{cfg.directory} has begun: what it trains on stays as it is; choose another name=...")
    if is_run(cfg.directory):
        require_same(cfg, cfg.directory)
    else:
        prepare(cfg)
    num, total = write(cfg, Path(arguments.file))
    print(f"rlsp import: {num} rows of {arguments.file}; {cfg.directory / FILE} holds {total}", file=sys.stderr)
    return 0


def has_begun(journal: Path) -> bool:
    """Whether a group was ever issued: a run that only failed to start may still be given its rows."""
    if not journal.exists():
        return False
    history = History(journal)
    try:
        return bool(history.rows("SELECT 1 FROM groups LIMIT 1"))
    finally:
        history.close()


def write(cfg: RunConfig, source: Path) -> tuple[int, int]:
    """Adds the rows of a file to RUN/imported.jsonl; (how many, how many there are now). Raises DataError."""
    target = cfg.directory / FILE
    part, num, total = target.with_suffix(".part"), 0, 0
    judged = _is_judged(target)
    try:
        if target.exists():
            shutil.copyfile(target, part)
        with part.open("ab") as file:
            for row in encoded(cfg, source):
                judged = row.verdict is not None if judged is None else judged
                if judged != (row.verdict is not None):
                    raise DataError(f"{row.prompt.source}: {'has no' if judged else 'has a'} status or reward, unlike "
                                    "the rows before it: a batch is judged or it is not; import them into two runs")
                file.write(msgspec.json.encode(row) + b"\n")
                num += 1
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


def _is_judged(target: Path) -> bool | None:
    if not target.exists():
        return None
    with target.open("rb") as file:
        return msgspec.json.decode(file.readline(), type=ImportedRow).verdict is not None


def encoded(cfg: RunConfig, source: Path) -> Iterator[ImportedRow]:
    """The rows of a file, checked. Raises DataError with FILE:LINE."""
    tokenizer, shape = tokens.load_tokenizer(cfg.directory / "model"), estimate.model_shape(cfg)
    for line, row in read_rows(source):
        where = f"{source}:{line}"
        prompt = Prompt(prompt_id=f"imported/{source.name}/{line}", task=cfg.task.name, source=f"{source.name}:{line}",
                        text=text_field(row, "prompt", where), answer=str(row.get("answer", "")),
                        chat=row.get("chat") is True, system=str(row.get("system", "")), selector="imported")
        response = text_field(row, "response", where, empty_ok="token_ids" in row)
        logprobs = _logprobs(row, where)
        if "token_ids" in row:
            prompt_ids, token_ids = _ids(row, "prompt_ids", len(tokenizer), where), _ids(
                row, "token_ids", len(tokenizer), where)
        else:
            prompt_ids = tokens.encode_prompt(tokenizer, prompt).tolist()
            token_ids = tokens.encode_response(tokenizer, response).tolist()
        if logprobs and len(logprobs) != len(token_ids):
            raise DataError(f"{where}: {len(logprobs)} logprobs for {len(token_ids)} token_ids")
        if shape and len(prompt_ids) + len(token_ids) > shape.context:
            raise DataError(f"{where}: {len(prompt_ids)} and {len(token_ids)} tokens do not fit the model's window of "
                            f"{shape.context}; leave the row out")
        yield ImportedRow(prompt=prompt, response=response, prompt_ids=prompt_ids, token_ids=token_ids,
                          logprobs=logprobs, verdict=verdict_of(row, where))


def verdict_of(row: Row, where: str) -> Verdict | None:
    """From `status` (and `parts`) or `reward`; None when there is neither. Raises DataError for what is no verdict."""
    status, reward = row.get("status"), row.get("reward")
    if status is None and reward is None:
        return None
    if status is None:
        x = _number(reward, f"{where}: reward")
        return Verdict(status="correct" if x >= 1 else "wrong", verifier="imported",
                       parts={"correct": float(x >= 1), "score": x})
    known: VerdictStatus | None = next((one for one in TRUE if one == status), None)
    if known is None:
        raise DataError(f"{where}: status {status!r} is no verdict on the answer; it must be one of {', '.join(TRUE)}")
    parts = row.get("parts", {"correct": float(status == "correct")})
    if not isinstance(parts, dict):
        raise DataError(f"{where}: parts must be an object of numbers")
    return Verdict(status=known, verifier="imported",
                   parts={str(name): _number(value, f"{where}: parts.{name}") for name, value in parts.items()})


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
