"""`rlsp import FILE --run CONFIG`: rollouts or demonstrations for the stages with source = "imported".

    {"prompt": "2 + 2 =", "response": "4"}                                      a demonstration
    {"prompt": "2 + 2 =", "response": "5", "answer": "4", "status": "wrong"}    a judged rollout; or "reward": 0.0
    {..., "prompt_ids": [..], "token_ids": [..], "logprobs": [..]}              with log-probs of the sampling policy
    {"prompt": "2 + 2 =", "chosen": "4", "rejected": "5"}                       a group of two, rewards 1 and 0
    {..., "group": 17}                                                          --group-by group: rollouts of one group

`response` may be called `completion`; prompts and responses may be lists of chat messages. These are the rows that
`rlsp export` writes, as JSON lines, JSON, CSV, Parquet or Arrow. The run is prepared if its directory does not exist.
The rows are encoded with the run's tokenizer, checked, with --verify judged by the run's verifier, and added to
RUN/imported.jsonl, all of them or none. A run that has begun accepts no rows.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from rlsp_async import files
from rlsp_async.audit.history import History
from rlsp_async.config import RunConfig, load
from rlsp_async.errors import ConfigError, DataError, unwritable
from rlsp_async.messages import Verdict, VerifyItem, VerifyJob
from rlsp_async.offline.imported_rows import TRUE, EncodedRow, encode_rows, group_rows
from rlsp_async.replay.sources import FILE, ImportedGroup

if TYPE_CHECKING:
    from rlsp_async.verifying.pool import VerifierPool

GROUPS_PER_PROCESS = 4
"""Groups that are judged at the same time, for each verifier process."""


def import_rows(file: Path, config: str, overrides: list[str], *, group_by: str = "", verify: bool = False) -> int:
    """Prepares the run if necessary, checks the rows and adds them to the run. Reports on stderr.

    Args:
        file: rows as `rlsp export` writes them.
        config: path of the run's TOML file.
        overrides: settings as `key=value`, as in `rlsp run`.
        group_by: a field; rows with the same value form groups. Empty: every row is a group.
        verify: judge the responses here, with the run's verifier.

    Returns:
        The exit code 0.

    Raises:
        UserError: the rows of the run are then unchanged.
    """
    from rlsp_async.runner.resume import is_run, require_same
    from rlsp_async.runner.run import prepare, resolve

    cfg = resolve(load(config, overrides))
    if all(stage.source != "imported" for stage in cfg.stages.values()):
        raise ConfigError(f'{config}: no stage has source = "imported": nothing would train on the rows')
    if has_begun(cfg.directory / "journal.sqlite"):
        raise ConfigError(f"{cfg.directory} has begun: what it trains on stays as it is; choose another name=...")
    old = is_run(cfg.directory)
    if old:
        require_same(cfg, cfg.directory)
    else:
        prepare(cfg)
    counts: Counter[str] = Counter()
    try:
        num, total = add_rows(cfg, file, group_by, verify, counts)
    except BaseException:  # raised again: also after Ctrl-C nothing stays prepared for rows that are not there
        if not old:
            shutil.rmtree(cfg.directory, ignore_errors=True)
        raise
    print(f"rlsp import: {num} rows of {file}; {cfg.directory / FILE} holds {total} groups", file=sys.stderr)
    for text in summarise_counts(counts):
        print(f"rlsp import: {text}", file=sys.stderr)
    return 0


def summarise_counts(counts: Counter[str]) -> Iterator[str]:
    """What happened to the rows in verification and grouping, as sentences."""
    if counts["too long"]:
        yield f"{counts['too long']} rows were left out: they exceed the model's window (task.too_long)"
    if judged := counts.total() - counts["lonely"] - counts["differs"] - counts["too long"]:
        shown = ", ".join(f"{counts[status]} {status}" for status in (*TRUE, "left out") if counts[status])
        yield f"{judged} responses judged here: {shown}"
    if counts["left out"]:
        yield (
            f"{counts['left out']} responses were left out: the verifier timed out or failed on them, and no "
            "verdict is made up"
        )
    if counts["differs"]:
        yield f"{counts['differs']} verdicts differ from the file's; the verdicts made here are used"
    if counts["lonely"]:
        yield f"{counts['lonely']} groups hold a single rollout: for them a group's baseline says nothing"


def has_begun(journal: Path) -> bool:
    """Whether a group was ever issued. A run that only failed to start still accepts rows."""
    if not journal.exists():
        return False
    history = History(journal)
    try:
        return bool(history.rows("SELECT 1 FROM groups LIMIT 1"))
    finally:
        history.close()


def add_rows(
    cfg: RunConfig, source: Path, group_by: str = "", verify: bool = False, counts: Counter[str] | None = None
) -> tuple[int, int]:
    """Adds the rows of a file to RUN/imported.jsonl, all of them or none.

    Args:
        cfg: the settings of the run, whose directory is prepared.
        source: a file of rows.
        group_by: a field; rows with the same value form groups. Empty: every row is a group.
        verify: judge the responses here, with the run's verifier.
        counts: is added to: verdicts by status, "left out", "differs" (from the file), "lonely" (groups of one).

    Returns:
        (number of rows added, number of groups in RUN/imported.jsonl now).

    Raises:
        DataError: a row cannot be used, or none is left.
        MachineError: RUN/imported.jsonl cannot be written.
    """
    counts = Counter() if counts is None else counts
    target = cfg.directory / FILE
    num_rows = num_groups = 0
    try:
        with files.being_replaced(target, durable=True) as file:
            if target.exists():
                with target.open("rb") as present:
                    num_groups = sum(1 for _ in present)
                    present.seek(0)
                    shutil.copyfileobj(present, file)
            for group in _read_groups(cfg, source, group_by, verify, counts):
                file.write(msgspec.json.encode(group) + b"\n")
                num_rows += len(group.rollouts)
                num_groups += 1
                counts["lonely"] += bool(group_by) and len(group.rollouts) == 1
            if not num_rows:
                raise DataError(f"{source}: nothing is left to train on")
    except OSError as e:
        raise unwritable(target, e) from None
    return num_rows, num_groups


def _read_groups(
    cfg: RunConfig, source: Path, group_by: str, verify: bool, counts: Counter[str]
) -> Iterator[ImportedGroup]:
    judged = _is_judged(cfg.directory / FILE)
    if judged is False and verify:
        raise DataError(
            f"{cfg.directory / FILE} holds rows without a verdict: a batch is judged or it is not; import "
            "into another run"
        )
    rows = encode_rows(cfg, source, group_by, verify, counts)
    groups = group_rows(rows if verify else _require_alike(rows, judged), cfg.sampling.rollouts)
    return judge_groups(cfg, groups, counts) if verify else groups


def _is_judged(target: Path) -> bool | None:
    """Whether the rows that the run has carry verdicts; None: the run has no rows."""
    if not target.exists():
        return None
    with target.open("rb") as file:
        return msgspec.json.decode(file.readline(), type=ImportedGroup).rollouts[0].verdict is not None


def _require_alike(rows: Iterator[EncodedRow], judged: bool | None) -> Iterator[EncodedRow]:
    """The rows. Raises DataError at the first row that has a verdict where the others have none, or the reverse."""
    for row in rows:
        judged = row.rollout.verdict is not None if judged is None else judged
        if judged != (row.rollout.verdict is not None):
            raise DataError(
                f"{row.where}: {'has no' if judged else 'has a'} status or reward, unlike "
                "the rows before it: a batch is judged or it is not; import them into two runs"
            )
        yield row


# --- verdicts made here -----------------------------------------------------------------------------------------------


def judge_groups(cfg: RunConfig, groups: Iterable[ImportedGroup], counts: Counter[str]) -> Iterator[ImportedGroup]:
    """The groups with verdicts of the run's verifier, which runs in killable processes.

    A verdict made here has `verifier` = "NAME/VERSION at import"; a verdict from the file has "imported". Time-outs and
    errors are no verdicts on the answer, and such a response is left out. `counts` is added to: verdicts by status,
    "left out", and "differs" (from the file). Raises ConfigError for an unusable verifier, EngineError when the machine
    cannot start a process.
    """
    from rlsp_async.verifying.base import check_verifier
    from rlsp_async.verifying.pool import VerifierPool

    check_verifier(cfg)
    waiting = iter(groups)
    with asyncio.Runner() as runner:
        pool = VerifierPool(cfg)
        runner.run(pool.__aenter__())
        try:
            while chunk := list(islice(waiting, GROUPS_PER_PROCESS * cfg.verifier.processes)):
                for group, verdicts in zip(chunk, runner.run(_judge(pool, chunk)), strict=True):
                    judged = with_verdicts(group, verdicts, counts)
                    if judged.rollouts:
                        yield judged
        finally:
            runner.run(pool.__aexit__(None, None, None))


async def _judge(pool: VerifierPool, groups: list[ImportedGroup]) -> list[list[Verdict]]:
    jobs = [
        VerifyJob(
            group_id=i,
            task=group.prompt.task,
            items=[
                VerifyItem(prompt=group.prompt.text, response=rollout.response, answer=group.prompt.answer)
                for rollout in group.rollouts
            ],
        )
        for i, group in enumerate(groups)
    ]
    return [done.verdicts for done in await asyncio.gather(*(pool.verify(job) for job in jobs))]


def with_verdicts(group: ImportedGroup, verdicts: list[Verdict], counts: Counter[str]) -> ImportedGroup:
    """The group with these verdicts; rollouts with a time-out or an error of the verifier are left out."""
    kept = []
    for rollout, verdict in zip(group.rollouts, verdicts, strict=True):
        counts[verdict.status if verdict.is_true else "left out"] += 1
        if verdict.is_true:
            counts["differs"] += rollout.verdict is not None and rollout.verdict.status != verdict.status
            mine = msgspec.structs.replace(verdict, verifier=f"{verdict.verifier} at import")
            kept.append(msgspec.structs.replace(rollout, verdict=mine))
    return msgspec.structs.replace(group, rollouts=kept)
