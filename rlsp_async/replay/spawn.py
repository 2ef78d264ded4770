"""Spawning: finished rollouts are put to the model again, which verifies them; both are trained together. Pure.

    stages.rl.spawn = { share = 0.125 }

RISE, arXiv:2505.13445: of every batch a share are *children*: groups whose prompt shows a problem and one finished
response, and whose reference answer is what the verifier had said of that response. A child is a group like any other:
it takes a slot, is sampled, verified, journalled, selected and trained by the same laws.

    draw n asks for a child   iff floor((n + 1) * share) > floor(n * share)
    candidates                rollouts of live, judged groups from which nothing was spawned yet, none too long
    their order               random by (seed, n); with `balance`, kinds of verdict taken longest ago come first
    the child                 the first candidate that the task can put as a prompt

Every input is journalled, and the child is written in the commit that charges its parent: a hub that was killed decides
the same again. Without a candidate the draw is a problem. The prompt travels in the child's head until it is sampled.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from rlsp_async.columns import num_values
from rlsp_async.config import Section, StageConfig
from rlsp_async.errors import ConfigError
from rlsp_async.messages import BY_SPAWN, Prompt, Rollout, RolloutGroup, Verdict
from rlsp_async.plugins import decode_options
from rlsp_async.replay.ledger import Ledger
from rlsp_async.replay.records import GroupRecord
from rlsp_async.tasks.base import Verification

SPAWNED = "spawned"
"""Name of the cursor: children issued. With "/STATUS" behind it: the draw, from 1, that last took such a parent."""


class Config(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `spawn`."""

    share: float = 0.125
    """Share of the groups that are verifications, 0..0.5; 0: none (the paper: 128 beside 1,024 problems)."""
    balance: bool = True
    """Parents that were judged correct, wrong and unparsable take turns; false: uniform among all rollouts."""
    max_tokens: int = 2048
    """A rollout that has more tokens with its prompt is not spawned from: a child's prompt is never cut."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.share <= 0.5:
            raise ValueError(f"share {self.share} must lie in 0..0.5: each problem has at most one child")
        if self.max_tokens < 1:
            raise ValueError("max_tokens must be at least 1")


class Child(NamedTuple):
    """What was chosen."""

    parent: GroupRecord
    place: int
    """Of the rollout in its group."""
    status: str
    """Of its verdict."""
    prompt: Prompt


class Candidate(NamedTuple):
    """A finished rollout."""

    group_id: int
    place: int
    status: str


class Spawner:
    """Children of one stage."""

    def __init__(self, cfg: Config, task: Verification, seed: int) -> None:
        self.cfg, self._task, self._seed = cfg, task, seed

    def is_due(self, number: int) -> bool:
        """Whether draw `number` (0, 1, 2 ...) asks for a child. Example: share .25 -> 3, 7, 11 ..."""
        return math.floor((number + 1) * self.cfg.share) > math.floor(number * self.cfg.share)

    def choose(self, ledger: Ledger, stage: str, number: int, cursors: Mapping[str, int]) -> Child | None:
        """The child of draw `number`; None: nothing that is finished can be put as a prompt."""
        found = candidates(ledger, stage, self.cfg.max_tokens)
        random.Random(f"spawn/{self._seed}/{number}").shuffle(found)
        if self.cfg.balance:
            found.sort(key=lambda one: cursors.get(f"{SPAWNED}/{one.status}", 0))
        for one in found:
            body, verdicts = ledger.bodies[one.group_id], ledger.verdicts[one.group_id]
            prompt = self._task.verification(body.prompt, body.rollouts[one.place].text, verdicts[one.place])
            if prompt is not None:
                named = _named(prompt, body, one.place)
                return Child(ledger.heads[one.group_id], one.place, one.status, named)
        return None


def candidates(ledger: Ledger, stage: str, max_tokens: int) -> list[Candidate]:
    """Rollouts of this stage that are judged and still there, in the order of their groups: no children, none of a
    group that has one already, none that is too long."""
    found = []
    for group_id in sorted(ledger.verdicts):
        head = ledger.heads[group_id]
        if head.purpose != "train" or head.stage != stage or head.provenance != "rollout" or head.parent:
            continue
        if not head.num_children:
            body, verdicts = ledger.bodies[group_id], ledger.verdicts[group_id]
            room = max_tokens - num_values(body.prompt_ids)
            found += [
                Candidate(group_id, rollout.index, verdict.status)
                for rollout, verdict in zip(body.rollouts, verdicts, strict=True)
                if num_values(rollout.token_ids) <= room
            ]
    return found


def child_head(child: Child, group_id: int, now: float) -> GroupRecord:
    """The head of a child that is issued now."""
    parent = child.parent
    return GroupRecord(
        group_id=group_id,
        stage=parent.stage,
        index=parent.index,
        visit=parent.visit,
        parent=f"{parent.group_id}/{child.place}",
        parent_oldest=parent.oldest,
        prompt=child.prompt,
        issued_s=now,
    )


def stamped(head: GroupRecord, group: RolloutGroup) -> RolloutGroup:
    """The group with the parent of its rollouts written into them; unchanged when it has none."""
    if not head.parent:
        return group
    rollouts: list[Rollout] = [
        msgspec.structs.replace(rollout, parent=head.parent, root=head.parent, depth=1) for rollout in group.rollouts
    ]
    return msgspec.structs.replace(group, rollouts=rollouts)


def figures(judged: Iterable[tuple[GroupRecord, Prompt, list[Verdict]]], step: int) -> dict[str, float]:
    """Of a batch of a stage that spawns: share of children, how often they are right, by reference answer too, and the
    mean over reference answers (balanced accuracy); how often the problems are solved; how old the parents are."""
    answers: dict[str, list[float]] = defaultdict(list)
    solved: list[float] = []
    ages: list[float] = []
    num_groups = 0
    for head, prompt, verdicts in judged:
        num_groups += 1
        right = [float(verdict.status == "correct") for verdict in verdicts]
        if head.parent:
            answers[prompt.answer] += right
            ages.append(step - 1 - head.parent_oldest)
        else:
            solved += right
    found = {"verification_share": len(ages) / max(1, num_groups)}
    if solved:
        found["solved"] = _mean(solved)
    if answers:
        means = {name: _mean(answers[name]) for name in sorted(answers)}
        found |= {
            "verification_accuracy": _mean([one for right in answers.values() for one in right]),
            "verification_balanced": _mean(list(means.values())),
            "verification_parent_lag": _mean(ages),
            **{f"verification.{name}": mean for name, mean in means.items()},
        }
    return found


def load_spawner(stage: StageConfig, task: Any, seed: int) -> Spawner | None:
    """The spawner of a stage; None: it has none. Raises ConfigError for a wrong option, and for a task whose responses
    cannot be verified by the model."""
    cfg = decode_options(stage.spawn, Config, "spawn", "spawn options")
    if not stage.spawn or not cfg.share:
        return None
    if stage.source != "rollouts":
        raise ConfigError(f"spawn is about rollouts, and this stage trains on {stage.source}: take it out")
    if not hasattr(task, "verification"):
        raise ConfigError(
            f"spawn: task {task.name!r} does not say how its responses are put to the model to be "
            "verified: take it out, or give the task a `verification` (docs/tasks.md)"
        )
    return Spawner(cfg, task, seed)


def _named(prompt: Prompt, parent: RolloutGroup, index: int) -> Prompt:
    """A name space of its own: no problem has such an id, and each rollout has at most one child."""
    return msgspec.structs.replace(
        prompt,
        prompt_id=f"spawned/{parent.group_id}/{index}/{parent.prompt.prompt_id}",
        index=parent.prompt.index,
        visit=parent.prompt.visit,
        selector=BY_SPAWN,
        propensity=1.0,
    )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
