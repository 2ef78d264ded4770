"""What a replay policy is: a way of changing what is sampled or trained, in one module.

A replay policy is a module that offers

    load(cfg: RunConfig, task, remembered: list[Record]) -> ReplayPolicy | None

and, when it stores records of its own in the journal, `STORE: PolicyStore`. `POLICIES` names the modules in the order
in which the hub asks them. `load` checks the settings of every stage and returns None when no stage uses the policy;
`remembered` is what the policy's store gave back after a restart of the hub.

The hub calls the hooks of a `ReplayPolicy` at fixed moments in the life of a group. All hooks are pure: they decide by
their arguments and by what the policy has been told before, so that a restarted hub decides the same. A hook that
changes something returns the records of the change, and the hub commits them with the event.

    a slot is free              on_issue        a group to issue instead of the next prompt
    rollouts came               on_sampled      the rollouts as they are stored
    a batch was chosen          on_batch        replacements in the batch, and records around its manifest
    a batch is sent             on_send         the batch as the learner gets it
    a step was reported         on_reported     forget what only that batch needed
    groups were quarantined     on_quarantined  records
    a stage has ended           on_stage_end    records
    a metrics row is written    figures         numbers by name
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from rlsp_async.config import RunConfig
from rlsp_async.messages import RolloutGroup, VerifiedGroup
from rlsp_async.plugins import PluginFamily
from rlsp_async.replay.ledger import Counters, Ledger
from rlsp_async.replay.records import GroupRecord, Manifest, Record, Replayed
from rlsp_async.replay.sql import Database

POLICIES = ["spawn", "success_replay"]
"""Modules of this package; a name with a dot is a module elsewhere."""

FAMILY = PluginFamily(
    noun="replay policy",
    package="rlsp_async.replay",
    setting="replay policy",
    options="options of the replay policy",
    needs=("load",),
)


class IssuedGroup(NamedTuple):
    """A group that a policy issues instead of the next prompt."""

    record: GroupRecord
    """The group without its id, which the hub gives."""
    changes: list[Record]
    """Records of what else changed; committed before the group's own record."""


class BatchChange(NamedTuple):
    """What a policy does with a batch that was just chosen."""

    replayed: list[Replayed]
    """Replacements of rollouts; they are part of the manifest."""
    before: list[Record]
    """Records that are committed before the manifest: the journal's invariants ask for them."""
    after: list[Record]
    """Records that are committed after the manifest."""


class ReplayPolicy:
    """The base of a replay policy. Each hook does nothing unless a policy overrides it."""

    def on_issue(self, stage: str, ledger: Ledger, counters: Counters, now: float) -> IssuedGroup | None:
        """A slot of `stage` is free; None leaves it to the next prompt. `now` is in seconds of the run."""
        return None

    def on_sampled(self, record: GroupRecord, group: RolloutGroup) -> RolloutGroup:
        """The rollouts of an issued group came; returns them as they are stored."""
        return group

    def on_batch(self, batch: Sequence[GroupRecord], step: int, ledger: Ledger) -> BatchChange:
        """The batch of `step` was chosen; `batch` holds the records from before the use was charged."""
        return BatchChange([], [], [])

    def on_send(self, manifest: Manifest, groups: list[VerifiedGroup]) -> list[VerifiedGroup]:
        """The batch of a step that is not reported yet is sent; returns the groups as the learner gets them."""
        return groups

    def on_reported(self, step: int) -> None:
        """The batches up to `step` are reported."""

    def on_quarantined(self, groups: Collection[int]) -> list[Record]:
        """Groups were taken out of their batch because they cannot be trained on; returns the records of what
        changed."""
        return []

    def on_stage_end(self, stage: str) -> list[Record]:
        """A stage has ended; returns the records of what changed."""
        return []

    def figures(self, manifest: Manifest, ledger: Ledger) -> dict[str, float]:
        """Numbers for the metrics row of a step, by name; called while its groups are still in training."""
        return {}

    def remembered(self, step: int) -> list[Any]:
        """What a hub that is restarted after `step` must know; a restart must give it back unchanged."""
        return []


class PolicyStore(Protocol):
    """How the journal keeps a policy's own records. Every method runs inside a transaction of the journal."""

    schema: str
    """SQL statements that make the policy's tables when they are missing."""
    records: tuple[type, ...]
    """The record types that the policy stores."""

    def store(self, db: Database, record: Any, pruned_to: int) -> None:
        """Stores one record. Tokens that only the batches up to step `pruned_to` need are deleted; -1: none are."""

    def load(self, db: Database) -> list[Any]:
        """The records that a restarted hub needs. Raises MachineError when stored tokens are damaged."""

    def prune(self, db: Database, upto: int) -> None:
        """Deletes the tokens that no batch after step `upto` needs."""

    def restore_batch(self, db: Database, manifest: Manifest, groups: list[VerifiedGroup]) -> list[VerifiedGroup]:
        """The groups of an old batch as the learner got them, from the groups as they are stored. Raises
        MachineError."""

    def check_manifest(self, db: Database, cfg: RunConfig, manifest: Manifest) -> None:
        """Raises InvariantError when a replacement in the manifest breaks a rule of the policy."""


class ReplayPolicies(ReplayPolicy):
    """Several policies as one: each hook asks all of them in order."""

    def __init__(self, policies: Iterable[ReplayPolicy]) -> None:
        self._policies = list(policies)

    def __iter__(self) -> Iterator[ReplayPolicy]:
        return iter(self._policies)

    def on_issue(self, stage: str, ledger: Ledger, counters: Counters, now: float) -> IssuedGroup | None:
        """The first group that a policy offers."""
        for policy in self._policies:
            issued = policy.on_issue(stage, ledger, counters, now)
            if issued is not None:
                return issued
        return None

    def on_sampled(self, record: GroupRecord, group: RolloutGroup) -> RolloutGroup:
        """Passes the rollouts through all policies."""
        for policy in self._policies:
            group = policy.on_sampled(record, group)
        return group

    def on_batch(self, batch: Sequence[GroupRecord], step: int, ledger: Ledger) -> BatchChange:
        """The changes of all policies together."""
        changes = [policy.on_batch(batch, step, ledger) for policy in self._policies]
        return BatchChange(
            replayed=[one for change in changes for one in change.replayed],
            before=[record for change in changes for record in change.before],
            after=[record for change in changes for record in change.after],
        )

    def on_send(self, manifest: Manifest, groups: list[VerifiedGroup]) -> list[VerifiedGroup]:
        """Passes the batch through all policies."""
        for policy in self._policies:
            groups = policy.on_send(manifest, groups)
        return groups

    def on_reported(self, step: int) -> None:
        """Tells all policies."""
        for policy in self._policies:
            policy.on_reported(step)

    def on_quarantined(self, groups: Collection[int]) -> list[Record]:
        """The records of all policies."""
        return [record for policy in self._policies for record in policy.on_quarantined(groups)]

    def on_stage_end(self, stage: str) -> list[Record]:
        """The records of all policies."""
        return [record for policy in self._policies for record in policy.on_stage_end(stage)]

    def figures(self, manifest: Manifest, ledger: Ledger) -> dict[str, float]:
        """The numbers of all policies."""
        return {name: num for policy in self._policies for name, num in policy.figures(manifest, ledger).items()}

    def remembered(self, step: int) -> list[Any]:
        """What all policies must know."""
        return [policy.remembered(step) for policy in self._policies]


def load_policies(cfg: RunConfig, task: Any, remembered: dict[str, list[Any]]) -> ReplayPolicies:
    """The policies that the stages of a run use.

    Args:
        cfg: the run.
        task: its task; some policies need more of it than prompts.
        remembered: by policy, what its store gave back.

    Raises:
        ConfigError: a wrong option, or settings that a policy cannot be combined with.
    """
    loaded = [FAMILY.find(name).load(cfg, task, remembered.get(name, [])) for name in POLICIES]
    return ReplayPolicies(policy for policy in loaded if policy is not None)


def policy_stores() -> dict[str, PolicyStore]:
    """The stores of all policies that have one, by the policy's name in `POLICIES`."""
    modules = {name: FAMILY.find(name) for name in POLICIES}
    return {name: module.STORE for name, module in modules.items() if hasattr(module, "STORE")}
