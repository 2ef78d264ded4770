"""Pools with a verifier of the test's choice."""

from __future__ import annotations

from typing import Any

from rlsp_async import config
from rlsp_async.messages import Verdict, VerifyItem, VerifyJob
from rlsp_async.verifying.pool import VerifierPool


def make_pool(
    verifier: str,
    options: dict[str, Any] | None = None,
    *,
    processes: int = 1,
    deadline_s: float = 20.0,
    memory_mb: int = 1024,
) -> VerifierPool:
    """A pool that has not been started."""
    cfg = config.RunConfig(
        name="r",
        stages={"s": config.StageConfig()},
        task=config.TaskConfig(verifier=verifier, verifier_options=options or {}),
        verifier=config.VerifierConfig(processes=processes, deadline_s=deadline_s, memory_mb=memory_mb),
    )
    return VerifierPool(cfg)


async def verify_cases(pool: VerifierPool, *cases: tuple[str, str, str], group_id: int = 7) -> list[Verdict]:
    """The verdicts on cases of prompt, response and reference answer, judged as one group."""
    items = [VerifyItem(prompt=prompt, response=response, answer=answer) for prompt, response, answer in cases]
    result = await pool.verify(VerifyJob(group_id=group_id, task="t", items=items))
    assert result.group_id == group_id
    return result.verdicts
