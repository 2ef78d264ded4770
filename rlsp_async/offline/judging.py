"""Verdicts on imported responses, made here, by the run's verifier in killable processes: `rlsp import --verify`.

A verdict says so: its `verifier` is "NAME/VERSION at import", where one that was taken from the file says "imported".
Timeouts and errors are verdicts on the verifier; such a response is left out.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice

import msgspec

from rlsp_async.config import RunConfig
from rlsp_async.messages import Verdict, VerifyItem, VerifyJob
from rlsp_async.replay.sources import ImportedGroup
from rlsp_async.verifying.base import check_verifier
from rlsp_async.verifying.pool import VerifierPool

GROUPS_PER_PROCESS = 4
"""Under way at once."""


def judged_here(cfg: RunConfig, groups: Iterable[ImportedGroup], counts: Counter[str]) -> Iterator[ImportedGroup]:
    """The groups with verdicts of the run's verifier; `counts` by status, "left out", and "differs" from the file.

    Raises ConfigError for a verifier that is none, EngineError when the machine gives no process.
    """
    check_verifier(cfg)
    waiting = iter(groups)
    with asyncio.Runner() as runner:
        pool = VerifierPool(cfg, "import")
        runner.run(pool.__aenter__())
        try:
            while chunk := list(islice(waiting, GROUPS_PER_PROCESS * cfg.verifier.processes)):
                for group, verdicts in zip(chunk, runner.run(_verdicts(pool, chunk)), strict=True):
                    made = with_verdicts(group, verdicts, counts)
                    if made.rollouts:
                        yield made
        finally:
            runner.run(pool.__aexit__(None, None, None))


async def _verdicts(pool: VerifierPool, groups: list[ImportedGroup]) -> list[list[Verdict]]:
    jobs = [
        VerifyJob(
            group_id=i,
            task=group.prompt.task,
            items=[
                VerifyItem(prompt=group.prompt.text, response=one.response, answer=group.prompt.answer)
                for one in group.rollouts
            ],
        )
        for i, group in enumerate(groups)
    ]
    return [done.verdicts for done in await asyncio.gather(*(pool.verify(job) for job in jobs))]


def with_verdicts(group: ImportedGroup, verdicts: list[Verdict], counts: Counter[str]) -> ImportedGroup:
    """The group with these verdicts; rollouts whose verdict is none on the answer are left out."""
    kept = []
    for rollout, verdict in zip(group.rollouts, verdicts, strict=True):
        counts[verdict.status if verdict.is_true else "left out"] += 1
        if verdict.is_true:
            counts["differs"] += rollout.verdict is not None and rollout.verdict.status != verdict.status
            mine = msgspec.structs.replace(verdict, verifier=f"{verdict.verifier} at import")
            kept.append(msgspec.structs.replace(rollout, verdict=mine))
    return msgspec.structs.replace(group, rollouts=kept)
