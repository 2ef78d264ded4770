"""Spawning (RISE, arXiv:2505.13445): the model verifies its own finished rollouts, and is trained on that as well.
Pure.

    stages.rl.spawn = { share = 0.125 }

A share of the groups of every batch are *children*. The prompt of a child shows a problem and one finished response to
it, and its reference answer is the verdict that the verifier gave on that response. Apart from its prompt a child is a
group like any other: it takes a slot, and is sampled, verified, journalled, selected and trained by the same rules.

    draw n asks for a child   iff floor((n + 1) * share) > floor(n * share)
    candidates                rollouts of live, verified groups that have no child yet; none that is too long
    their order               random by (seed, n); with `balance`, the kind of verdict taken longest ago is first
    the child                 the first candidate from which the task can make a prompt

Without a candidate the draw is the next problem. Every input of the choice is in the journal, and the child is written
in the commit that charges its parent, so a hub that was killed decides the same again. The prompt stands in the child's
record until the child is sampled (`GroupRecord.parent`, `.prompt`: a part of the journal's format).
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, NamedTuple

import msgspec

from rlsp_async.columns import num_values
from rlsp_async.config import RunConfig, Section, StageConfig
from rlsp_async.config.ranges import Range
from rlsp_async.errors import ConfigError
from rlsp_async.messages import BY_SPAWN, Prompt, Rollout, RolloutGroup, Verdict
from rlsp_async.plugins import decode_options
from rlsp_async.replay.ledger import Counters, Ledger
from rlsp_async.replay.policies import IssuedGroup, ReplayPolicy
from rlsp_async.replay.records import GroupRecord, Manifest, Record
from rlsp_async.tasks.base import Verification

SPAWNED = "spawned"
"""Name of the counter of children. "spawned/STATUS" is the draw, counted from 1, that last chose a parent with that
verdict."""


class SpawnConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `spawn`."""

    share: Annotated[float, Range(ge=0, le=0.5)] = 0.125
    """Share of the groups that are verifications: each problem has at most one. 0: none (the paper: 128 beside 1,024
    problems)."""
    balance: bool = True
    """Parents whose verdicts are correct, wrong and unparsable take turns; false: uniform among all rollouts."""
    max_tokens: Annotated[int, Range(ge=1, le=2**24)] = 2048
    """A rollout that has more tokens with its prompt is not spawned from: a child's prompt is never cut."""


Config = SpawnConfig


def load(cfg: RunConfig, task: Any, remembered: list[Any]) -> Spawning | None:
    """The policy of a run; None when no stage spawns. Raises ConfigError as `load_spawner`."""
    loaded = {name: load_spawner(stage, task, cfg.seed) for name, stage in cfg.stages.items()}
    spawners = {name: spawner for name, spawner in loaded.items() if spawner is not None}
    return Spawning(spawners) if spawners else None


def load_spawner(stage: StageConfig, task: Any, seed: int) -> Spawner | None:
    """The spawner of a stage; None when it does not spawn.

    Raises ConfigError for a wrong option, and for a task that cannot put a response to the model.
    """
    cfg = decode_options(stage.spawn, SpawnConfig, "spawn", "spawn options")
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


class Spawning(ReplayPolicy):
    """The policy of a run: issues children, marks their rollouts, and measures both kinds of groups."""

    def __init__(self, spawners: dict[str, Spawner]) -> None:
        self.spawners = spawners
        """By the name of the stage."""

    def on_issue(self, stage: str, ledger: Ledger, counters: Counters, now: float) -> IssuedGroup | None:
        """The child that this draw asks for, if there is one; its parent is charged in the same commit."""
        spawner, number = self.spawners.get(stage), draw_number(counters)
        if spawner is None or not spawner.is_due(number):
            return None
        child = spawner.choose(ledger, stage, number, counters)
        if child is None:
            return None
        changes: list[Record] = [
            ledger.spawned(child.parent.group_id),
            counters.increase(SPAWNED),
            counters.set(f"{SPAWNED}/{child.status}", number + 1),
        ]
        return IssuedGroup(child_record(child, now), changes)

    def on_sampled(self, record: GroupRecord, group: RolloutGroup) -> RolloutGroup:
        """Writes the parent of a child into its rollouts."""
        return with_parent(record, group)

    def figures(self, manifest: Manifest, ledger: Ledger) -> dict[str, float]:
        """Figures of the problems and of the verifications of a batch, apart."""
        if manifest.stage not in self.spawners:
            return {}
        records = [ledger.records[group_id] for group_id in manifest.groups]
        return figures(
            [(r, ledger.bodies[r.group_id].prompt, ledger.verdicts.get(r.group_id, [])) for r in records],
            manifest.step,
        )


def draw_number(counters: Mapping[str, int]) -> int:
    """The number of the next draw of a run, 0, 1, 2, ...: prompts and children issued so far."""
    return counters.get("train", 0) + counters.get(SPAWNED, 0)


class Child(NamedTuple):
    """What was chosen."""

    parent: GroupRecord
    rollout: int
    """Index of the rollout in the parent group."""
    status: str
    """Verdict on that rollout."""
    prompt: Prompt


class Candidate(NamedTuple):
    """A finished rollout from which a child may be spawned."""

    group_id: int
    rollout: int
    status: str


class Spawner:
    """Chooses the children of one stage."""

    def __init__(self, cfg: SpawnConfig, task: Verification, seed: int) -> None:
        self.cfg, self._task, self._seed = cfg, task, seed

    def is_due(self, number: int) -> bool:
        """Whether draw `number` (0, 1, 2 ...) asks for a child. Example: share .25 -> 3, 7, 11 ..."""
        return math.floor((number + 1) * self.cfg.share) > math.floor(number * self.cfg.share)

    def choose(self, ledger: Ledger, stage: str, number: int, counters: Mapping[str, int]) -> Child | None:
        """The child of draw `number`; None when the task can make a prompt from no candidate."""
        shuffled = candidates(ledger, stage, self.cfg.max_tokens)
        random.Random(f"spawn/{self._seed}/{number}").shuffle(shuffled)
        if self.cfg.balance:
            shuffled.sort(key=lambda candidate: counters.get(f"{SPAWNED}/{candidate.status}", 0))
        for group_id, rollout, status in shuffled:
            body, verdicts = ledger.bodies[group_id], ledger.verdicts[group_id]
            prompt = self._task.verification(body.prompt, body.rollouts[rollout].text, verdicts[rollout])
            if prompt is not None:
                return Child(ledger.records[group_id], rollout, status, _child_prompt(prompt, body, rollout))
        return None


def candidates(ledger: Ledger, stage: str, max_tokens: int) -> list[Candidate]:
    """Verified rollouts of live groups of a stage, in the order of their groups.

    Left out are children, groups that have a child already, and rollouts that have more than `max_tokens` tokens with
    their prompt.
    """
    found = []
    for group_id in sorted(ledger.verdicts):
        record = ledger.records[group_id]
        if record.purpose != "train" or record.stage != stage or record.provenance != "rollout" or record.parent:
            continue
        if not record.num_children:
            body, verdicts = ledger.bodies[group_id], ledger.verdicts[group_id]
            room = max_tokens - num_values(body.prompt_ids)
            found += [
                Candidate(group_id, rollout.index, verdict.status)
                for rollout, verdict in zip(body.rollouts, verdicts, strict=True)
                if num_values(rollout.token_ids) <= room
            ]
    return found


def child_record(child: Child, now: float) -> GroupRecord:
    """The record of a child that is issued now; the hub gives its id."""
    parent = child.parent
    return GroupRecord(
        group_id=0,
        stage=parent.stage,
        index=parent.index,
        visit=parent.visit,
        parent=f"{parent.group_id}/{child.rollout}",
        parent_oldest=parent.oldest,
        prompt=child.prompt,
        issued_s=now,
    )


def with_parent(record: GroupRecord, group: RolloutGroup) -> RolloutGroup:
    """The group with the parent of its rollouts written into them; unchanged when it is not a child."""
    if not record.parent:
        return group
    rollouts: list[Rollout] = [
        msgspec.structs.replace(rollout, parent=record.parent, root=record.parent, depth=1)
        for rollout in group.rollouts
    ]
    return msgspec.structs.replace(group, rollouts=rollouts)


def figures(verified: Iterable[tuple[GroupRecord, Prompt, list[Verdict]]], step: int) -> dict[str, float]:
    """Figures of a batch of a stage that spawns, from the record, prompt and verdicts of each group.

    verification_share          children among the groups
    solved                      correct rollouts among those of problems
    verification_accuracy       correct rollouts among those of children
    verification.ANSWER         the same for the children with this reference answer
    verification_balanced       the mean over reference answers (balanced accuracy)
    verification_parent_lag     mean age of the parents in versions
    """
    answers: dict[str, list[float]] = defaultdict(list)
    solved: list[float] = []
    ages: list[float] = []
    num_groups = 0
    for record, prompt, verdicts in verified:
        num_groups += 1
        right = [float(verdict.status == "correct") for verdict in verdicts]
        if record.parent:
            answers[prompt.answer] += right
            ages.append(step - 1 - record.parent_oldest)
        else:
            solved += right
    result = {"verification_share": len(ages) / max(1, num_groups)}
    if solved:
        result["solved"] = _mean(solved)
    if answers:
        means = {name: _mean(answers[name]) for name in sorted(answers)}
        result |= {
            "verification_accuracy": _mean([value for right in answers.values() for value in right]),
            "verification_balanced": _mean(list(means.values())),
            "verification_parent_lag": _mean(ages),
            **{f"verification.{name}": mean for name, mean in means.items()},
        }
    return result


def _child_prompt(prompt: Prompt, parent: RolloutGroup, index: int) -> Prompt:
    """The prompt with an id that no problem and no other child has: a rollout has at most one child."""
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
