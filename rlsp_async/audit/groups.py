"""Checks of every single group.

G1   nothing that was acknowledged is missing or damaged
G2   each group is stored once
G3   groups are trained with all their rollouts
G8   only true verdicts train; a failed group says why
G12  tokens come from versions that were published
"""

from __future__ import annotations

from rlsp_async.audit.acknowledged import find_lost
from rlsp_async.audit.history import Finding, GroupRow, History, Violations, decoded
from rlsp_async.messages import RolloutGroup, Verdict
from rlsp_async.observations import num_sampled, sampled_versions
from rlsp_async.replay.sql import body_digest

TRUE = ("correct", "wrong", "unparsable")
DEAD = ("trained", "evaluated", "dropped")
HAS_BODY = ("sampled", "ready", "training")
HAS_VERDICTS = ("ready", "training")
STORED = {
    "acked.sample": "SELECT count(*) FROM groups WHERE provenance = 'rollout' AND num_rollouts > 0",
    "acked.verify": """SELECT count(*) FROM groups WHERE provenance = 'rollout' AND
        (num_verdicts > 0 OR state IN ('ready', 'training', 'trained', 'evaluated'))""",
}
"""For each counter of acknowledged results, the number of results of that kind that the journal has."""


class GroupChecks:
    """All five, in one pass over the groups."""

    def __init__(self, history: History) -> None:
        self._cfg, self._forgot_to = history.cfg, history.forgot_to
        self._published = {0, *(step.step for step in history.steps() if step.published)}
        self._g1 = Violations("G1", "nothing that was acknowledged is missing")
        self._g2 = Violations("G2", "each group is stored once")
        self._g3 = Violations("G3", "groups are trained whole")
        self._g8 = Violations("G8", "only true verdicts train")
        self._g12 = Violations("G12", "tokens come from published versions")
        self._num, self._num_bodies, self._num_trained, self._num_failed = 0, 0, 0, 0
        self._next_id = 1
        self._digests: dict[bytes, int] = {}

    def run(self, history: History) -> list[Finding]:
        """Checks all groups; one finding for each guarantee."""
        for row in history.groups():
            self._group(row)
        [(health,)] = history.rows("PRAGMA quick_check(1)")
        if health != "ok":
            self._g1.add(f"SQLite says: {health}", path=str(history.path))
        for orphans in ("bodies", "verdicts"):
            for (group_id,) in history.rows(f"SELECT group_id FROM {orphans} EXCEPT SELECT group_id FROM groups"):
                self._g1.add(f"{orphans} without a group", group=group_id)
        said = self._acknowledged(history)
        return [
            self._g1.finding(
                f"{self._num:,} groups, no id is missing; {self._num_bodies:,} bodies match their digest{said}"
            ),
            self._g2.finding(f"{self._num_bodies:,} kept bodies, all different"),
            self._g3.finding(f"{self._num_trained:,} groups were trained, each with all its rollouts"),
            self._g8.finding(f"{self._num_trained:,} groups were trained; {self._num_failed:,} failed, none of them"),
            self._g12.finding(f"{len(self._published):,} versions were published"),
        ]

    def _acknowledged(self, history: History) -> str:
        """Compares the hub's count of stored and acknowledged results, and the acknowledgements in the workers' logs,
        with the groups and steps that are there. Returns what was compared.

        The journal counts a result in the transaction that stores it. What a worker was told beyond that count shows
        only in the worker's own log, which is written when RLSP_LOG_ACKS is set.
        """
        counted = dict(history.rows("SELECT name, value FROM cursors WHERE name LIKE 'acked.%'"))
        for name, query in STORED.items():
            [(num,)] = history.rows(query)
            if counted.get(name, 0) > num:
                self._g1.add(f"{counted[name]:,} results were acknowledged ({name}), and {num:,} are stored")
        num_logged, missing = find_lost(history)
        for sentence in missing:
            self._g1.add(sentence)
        if not counted and not num_logged:
            return ""
        return f"; {sum(counted.values()):,} acknowledgements counted, {num_logged:,} found in logs"

    def _group(self, row: GroupRow) -> None:
        self._num += 1
        self._num_trained += row.uses > 0
        self._num_failed += row.reason in ("quarantined", "sampler_error", "verifier_error")
        for missing in range(self._next_id, min(row.group_id, self._next_id + 100)):
            self._g1.add("no such group: its row is gone", group=missing)
        self._next_id = row.group_id + 1
        record, body, verdicts, damage = decoded(row)
        if damage or record is None:
            self._g1.add(f"it cannot be decoded: {damage}", group=row.group_id)
            return
        if bool(row.dead) != (row.state in DEAD):
            self._g1.add(f"it is {row.state}, and marked as {'gone' if row.dead else 'alive'}", group=row.group_id)
        columns = (row.state, row.num_tokens, row.uses, row.step, row.oldest, row.num_rollouts, row.num_verdicts)
        if columns != (
            record.state,
            record.num_tokens,
            record.uses,
            record.step,
            record.oldest,
            record.num_rollouts,
            record.num_verdicts,
        ):
            self._g1.add("its columns and its record differ", group=row.group_id)
        self._stored(row, body, verdicts)
        self._columns(row)
        if body is not None:
            self._body(row, body)
        if verdicts is not None:
            self._verdicts(row, verdicts)

    def _stored(self, row: GroupRow, body: RolloutGroup | None, verdicts: list[Verdict] | None) -> None:
        """Tokens and verdicts that may still be needed are there, unchanged."""
        replayable = row.state == "trained" and row.step > self._forgot_to
        if body is None and (row.state in HAS_BODY or replayable):
            self._g1.add(f"it is {row.state} and its tokens are gone", group=row.group_id)
        if verdicts is None and row.is_rollouts and (row.state in HAS_VERDICTS or replayable):
            self._g1.add(f"it is {row.state} and its verdicts are gone", group=row.group_id)
        if row.body is None:
            return
        self._num_bodies += 1
        digest = body_digest(row.body)
        if digest != row.body_digest:
            self._g1.add("its tokens are not the ones that came (digest)", group=row.group_id)
        if self._digests.setdefault(digest, row.group_id) != row.group_id:
            self._g2.add(f"its body is that of group {self._digests[digest]}", group=row.group_id)

    def _columns(self, row: GroupRow) -> None:
        """Checks of the row alone, which also hold after the tokens were pruned."""
        is_imported = not row.is_rollouts and self._cfg.stages[row.stage].source == "imported"
        whole = self._cfg.sampling.rollouts if row.is_rollouts or is_imported else 1
        if row.uses and not (1 if is_imported else whole) <= row.num_rollouts <= whole:
            self._g3.add(f"trained with {row.num_rollouts} of {whole} rollouts", group=row.group_id, step=row.step)
        if row.uses and row.num_verdicts != row.num_rollouts and (row.is_rollouts or row.num_verdicts):
            self._g8.add(
                f"trained with {row.num_verdicts} true verdicts on {row.num_rollouts} rollouts",
                group=row.group_id,
                step=row.step,
            )
        if row.reason in ("quarantined", "sampler_error", "verifier_error") and (not row.why or row.uses):
            self._g8.add("it failed" + (", yet was trained" if row.uses else " without a reason"), group=row.group_id)
        if row.is_rollouts and row.num_rollouts:
            for version in {row.oldest, row.newest} - self._published:
                self._g12.add(f"sampled by version {version}, which was never published", group=row.group_id)

    def _body(self, row: GroupRow, body: RolloutGroup) -> None:
        if body.group_id != row.group_id:
            self._g2.add(f"its body says that it is group {body.group_id}", group=row.group_id)
        if len({rollout.index for rollout in body.rollouts}) != len(body.rollouts):
            self._g2.add("it has a rollout twice", group=row.group_id)
        if len(body.rollouts) != row.num_rollouts or len(body.rollouts) != body.sampling.rollouts:
            self._g3.add(
                f"{len(body.rollouts)} rollouts are stored, it had {row.num_rollouts} of {body.sampling.rollouts}",
                group=row.group_id,
            )
        if sum(num_sampled(rollout) for rollout in body.rollouts) != row.num_tokens:
            self._g1.add("its number of tokens is not the one that was counted", group=row.group_id)
        if row.is_rollouts:
            versions = {int(v) for rollout in body.rollouts for v in set(sampled_versions(rollout).tolist())}
            for version in sorted(versions - self._published):
                self._g12.add(f"a token of version {version}, which was never published", group=row.group_id)
            if versions and min(versions) != row.oldest:
                self._g12.add(
                    f"its oldest token is of version {min(versions)}, its row says {row.oldest}", group=row.group_id
                )

    def _verdicts(self, row: GroupRow, verdicts: list[Verdict]) -> None:
        untrue = [verdict.status for verdict in verdicts if verdict.status not in TRUE]
        if untrue or len(verdicts) != row.num_verdicts:
            self._g8.add(
                f"{len(verdicts)} verdicts, untrue ones: {', '.join(untrue) or 'none'}; "
                f"{row.num_verdicts} were counted",
                group=row.group_id,
            )
