"""Every reference answer is judged before a run, by the run's own verifier in its killable processes.

    found = judge_references(cfg)       # None: the verifier has no reference answers that could be judged
    found.sentences()                   # how many are not correct against themselves, with their rows
    refuse_unreadable(cfg, found)       # DataError when more than task.max_unreadable of them are not

A response that gives the reference answer must be `correct`: a row whose own answer the verifier refuses or cannot read
would pay for nothing but luck. Some rows are judged a second time against the answer of another row, which should not
be correct; where it is, the two answers may be equal, or the verifier accepts too much. That share is shown, and
decides nothing. Only verifiers that say what such a response looks like are asked (`verifying/base.py`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from rlsp_async.answers import show_answers, split_answers
from rlsp_async.config import RunConfig
from rlsp_async.contents import check_prompt, printable
from rlsp_async.errors import DataError
from rlsp_async.messages import Prompt, Verdict, VerifyItem, VerifyJob
from rlsp_async.tasks.base import Split, Task, load_task
from rlsp_async.verifying.base import Verifier, load_verifier, verifier_name
from rlsp_async.verifying.pool import VerifierPool

SAMPLE = 1000
"""Prompts of an endless split whose answers are judged."""
SWAPPED = 200
"""Rows that are judged against the answer of another row."""
RUN_BUDGET_S = 60.0
"""Time that `rlsp run` gives to the judging; `rlsp check` judges everything."""
CHUNK = 16
"""Answers of one job; they go to one checker process."""
PROGRESS_S = 5.0
EXAMPLES = 5
_SHOWN = 60
"""Characters of an answer in a sentence."""


class References(NamedTuple):
    """What the verifier says of the reference answers."""

    verifier: str
    """Its name and version."""
    total: int
    """Rows with a response that gives the reference answer."""
    judged: int
    """Those that were judged in time."""
    failed: int
    """Those of which an acceptable answer is not correct against itself."""
    examples: list[str]
    """The first of them: row, answer, verdict."""
    swapped: int
    """Rows that were judged against the answer of another row."""
    accepted: int
    """Those of them that were called correct."""
    accepted_examples: list[str]

    def sentences(self) -> list[str]:
        """What was found, for people; one sentence or example a line."""
        rest = "" if self.judged == self.total else f" of {self.total:,} (the time was over; `rlsp check` judges all)"
        lines = [
            f"{self.judged:,}{rest} reference answers judged by {self.verifier}: "
            f"{self.failed:,} are not correct against themselves{_share(self.failed, self.judged)}",
            *(f"  {example}" for example in self.examples),
        ]
        if self.swapped:
            lines.append(
                f"{self.swapped:,} judged against the answer of another row: {self.accepted:,} are called correct"
                f"{_share(self.accepted, self.swapped)}"
            )
        return [*lines, *(f"  {example}" for example in self.accepted_examples)]


class _Case(NamedTuple):
    """One response to judge against the answer of one row."""

    row: int
    where: str
    item: VerifyItem


def judge_references(
    cfg: RunConfig, say: Callable[[str], None] = lambda text: None, budget_s: float | None = None
) -> References | None:
    """Judges the reference answers of every split that the run uses.

    Args:
        cfg: the settings.
        say: shows a line of progress every few seconds.
        budget_s: no further answers are judged after this time; None: all are.

    Returns:
        What was found; None when the verifier has no reference answers that could be judged.

    Raises:
        UserError: the task or the verifier cannot be loaded.
        EngineError: no checker process can be started.
    """
    task = load_task(cfg.task, cfg.seed)
    verifier = load_verifier(verifier_name(cfg), cfg.task.verifier_options)
    if verifier.reference is None:
        return None
    rows = [row for split in _used_splits(cfg) for row in _known_rows(task, split, verifier)]
    if not rows:
        return None
    own = [case for number, (prompt, given) in enumerate(rows) for case in _own_cases(number, prompt, given, verifier)]
    swapped = list(_swapped_cases(rows, verifier))
    verdicts = asyncio.run(_judge(cfg, [case.item for case in own + swapped], say, budget_s))
    return _summarise(verifier.name, len(rows), own, swapped, verdicts)


def refuse_unreadable(cfg: RunConfig, found: References | None) -> None:
    """Raises DataError, with the rows, when more of the answers than `task.max_unreadable` are not correct."""
    if found is None or found.failed <= cfg.task.max_unreadable * found.judged:
        return
    more = f"; and {found.failed - len(found.examples):,} more" if found.failed > len(found.examples) else ""
    shown = "; ".join(found.examples)
    raise DataError(
        f"task {cfg.task.name!r}: {found.failed:,} of {found.judged:,} reference answers are not correct against "
        f"themselves{_share(found.failed, found.judged)}, as {found.verifier} judges: {shown}{more}. "
        "Correct these rows or leave them out, name the verifier that reads them (task.verifier), or raise "
        f"task.max_unreadable = {cfg.task.max_unreadable:g}"
    )


# --- what is judged ---------------------------------------------------------------------------------------------------


def _used_splits(cfg: RunConfig) -> list[Split]:
    used: list[Split] = []
    if any(stage.source == "rollouts" for stage in cfg.stages.values()):
        used.append("train")
    if cfg.evaluation.prompts:
        used.append("test")
    return used


def _known_rows(task: Task, split: Split, verifier: Verifier) -> Iterator[tuple[Prompt, str]]:
    """The prompts of a split and their demonstrations, where a response with the reference answer is known.

    Those whose reference answer the verifier cannot use are among them; they are judged to be told why.
    """
    size = task.size(split)
    given = _demonstrations(task, size) if split == "train" else {}
    for index in range(SAMPLE if size is None else size):
        prompt = task.prompt(split, index)
        check_prompt(prompt)
        demonstration = given.get(prompt.prompt_id, "")
        known = verifier.reference_response(verifier.acceptable_answers(prompt.answer)[0], demonstration)
        if known or not verifier.can_read(prompt.text, prompt.answer):
            yield prompt, demonstration


def _demonstrations(task: Task, size: int | None) -> dict[str, str]:
    """Responses of the task by prompt id; none of an endless task, whose teacher may err on purpose."""
    found: dict[str, str] = {}
    for index in range(size or 0):
        try:
            prompt, response = task.demonstration(index)
        except DataError:  # the task has none
            break
        if prompt.prompt_id in found:
            break  # a task with fewer demonstrations than rows begins again
        found[prompt.prompt_id] = response
    return found


def _own_cases(number: int, prompt: Prompt, given: str, verifier: Verifier) -> Iterator[_Case]:
    """Each acceptable answer against itself."""
    for answer in verifier.acceptable_answers(prompt.answer):
        response = verifier.reference_response(answer, given)
        yield _Case(number, _name(prompt), VerifyItem(prompt=prompt.text, response=response, answer=answer))


def _swapped_cases(rows: Sequence[tuple[Prompt, str]], verifier: Verifier) -> Iterator[_Case]:
    """Rows at equal distances, each with the response of the next row of these that has another answer."""
    chosen = rows[:: max(1, len(rows) // SWAPPED)][:SWAPPED]
    for number, (prompt, _) in enumerate(chosen):
        acceptable = set(split_answers(prompt.answer))
        others = (chosen[(number + far) % len(chosen)] for far in range(1, len(chosen)))
        for other, given in islice(others, EXAMPLES):
            answer = split_answers(other.answer)[0]
            if acceptable.isdisjoint(split_answers(other.answer)):
                response = verifier.reference_response(answer, given)
                where = f"{_name(prompt)}: {_shown(prompt.answer)} and {_name(other)}: {_shown(other.answer)}"
                yield _Case(number, where, VerifyItem(prompt=prompt.text, response=response, answer=prompt.answer))
                break


# --- judging ----------------------------------------------------------------------------------------------------------


async def _judge(
    cfg: RunConfig, items: Sequence[VerifyItem], say: Callable[[str], None], budget_s: float | None
) -> list[Verdict]:
    """Verdicts on the first items; on all of them unless the time is over."""
    verdicts: list[Verdict] = []
    start = told = time.monotonic()
    async with VerifierPool(cfg) as pool:
        window = 4 * CHUNK * cfg.verifier.processes
        for begin in range(0, len(items), window):
            jobs = [
                VerifyJob(group_id=at, task="check", items=list(items[at : min(at + CHUNK, begin + window)]))
                for at in range(begin, min(begin + window, len(items)), CHUNK)
            ]
            for done in await asyncio.gather(*(pool.verify(job) for job in jobs)):
                verdicts += done.verdicts
            now = time.monotonic()
            if budget_s is not None and now - start > budget_s:
                break
            if now - told >= PROGRESS_S and len(verdicts) < len(items):
                told = now
                say(f"judging reference answers: {len(verdicts):,} of {len(items):,}")
    return verdicts


def _summarise(name: str, total: int, own: list[_Case], swapped: list[_Case], verdicts: list[Verdict]) -> References:
    bad: dict[int, str] = {}
    judged = set()
    for case, verdict in zip(own, verdicts, strict=False):
        judged.add(case.row)
        if verdict.status != "correct" and case.row not in bad:
            if not case.item.answer.strip():
                bad[case.row] = f"{case.where}: has no reference answer"
                continue
            why = verdict.detail or (f"read as {verdict.extracted!r}" if verdict.extracted else "")
            bad[case.row] = f"{case.where}: {_shown(case.item.answer)} is {verdict.status}" + (
                f" ({printable(why, _SHOWN)})" if why else ""
            )
    again = list(zip(swapped, verdicts[len(own) :], strict=False))
    accepted = [case.where for case, verdict in again if verdict.status == "correct"]
    return References(
        name,
        total,
        len(judged),
        len(bad),
        list(bad.values())[:EXAMPLES],
        len(again),
        len(accepted),
        accepted[:EXAMPLES],
    )


def _share(part: int, whole: int) -> str:
    return f" ({100 * part / whole:.1f} %)" if part else ""


def _shown(answer: str) -> str:
    text = printable(show_answers(answer))
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]} ...")


def _name(prompt: Prompt) -> str:
    return prompt.source or prompt.prompt_id
