"""Successes remembered by prompt: what is kept, what is drawn. Pure. After ARPO, arXiv:2505.16282, Sec. 3.

    a group of which every rollout failed, and a success of its prompt is remembered:
        one of its rollouts gives its place to a success drawn uniformly by (seed, step, group)
    then the successes of the batch's own rollouts are remembered: first in first out, `capacity` a prompt

The memory of a stage ends with it. A success that went may still stand in a batch that a learner is sent again: its
tokens stay until that batch is reported (here) and behind every kept checkpoint (`store.py`).
"""

from __future__ import annotations

import random
from collections.abc import Iterable

import msgspec

from rlsp_async.config import SuccessReplayConfig
from rlsp_async.messages import Verdict, VerifiedGroup
from rlsp_async.replay.records import Judged, Remember, Replayed, Success

Key = tuple[int, int]
"""(group, index) of a rollout."""


def has_failed(cfg: SuccessReplayConfig, verdicts: list[Verdict]) -> bool:
    """Whether a group has nothing to learn from. Example: eight scores 0 -> True; one of them 1 -> False."""
    scores = [verdict.parts.get("correct", 0.0) for verdict in verdicts]
    if not scores or any(verdict.status == "correct" for verdict in verdicts):
        return False
    mean = sum(scores) / len(scores)
    variance = sum((score - mean) ** 2 for score in scores) / len(scores)
    return mean < cfg.mean_below and variance < cfg.std_below**2


class Memory:
    """The successes of a run. What changes it answers the records of the change."""

    def __init__(self, remembered: Iterable[Remember] = ()) -> None:
        self._known: dict[Key, Remember] = {}
        self._of_prompt: dict[tuple[str, int], dict[Key, None]] = {}
        self._queue: dict[Key, None] = {}
        """Those that are kept, oldest first, like each prompt's own."""
        for one in sorted(remembered, key=lambda one: (one.success.since, one.success.order)):
            self._add(one)

    @property
    def num_kept(self) -> int:
        """Successes that may be drawn."""
        return len(self._queue)

    def of_prompt(self, stage: str, place: int) -> list[Success]:
        """Oldest first."""
        return [self._known[key].success for key in self._of_prompt.get((stage, place), {})]

    def known(self) -> list[Success]:
        """All that tokens are held of, in the order in which they came."""
        return [one.success for one in self._known.values()]

    def body(self, key: Key) -> Judged:
        """Tokens and verdict of a success."""
        body = self._known[key].body
        assert body is not None, key
        return body

    def draw(
        self, cfg: SuccessReplayConfig, stage: str, place: int, step: int, group_id: int, seed: int
    ) -> Success | None:
        """A success for a failed group in the batch of `step`; None: there is none that may be used."""
        found = [
            one
            for one in self.of_prompt(stage, place)
            if (not cfg.max_age or step - 1 - one.oldest <= cfg.max_age)
            and (not cfg.max_uses or one.uses < cfg.max_uses)
        ]
        return random.Random(f"{seed}/{step}/{group_id}/success").choice(found) if found else None

    def charge(self, success: Success, step: int) -> Remember:
        """It stands in for a failed rollout in the batch of `step`."""
        return self._change(success.key, uses=success.uses + 1, step=step)

    def remember(self, cfg: SuccessReplayConfig, success: Success, body: Judged) -> list[Remember]:
        """A new success; the oldest go when there are too many."""
        self._add(Remember(success=success, body=body))
        mine = self._of_prompt[success.stage, success.place]
        gone = [self._evict(next(iter(mine)))] if len(mine) > cfg.capacity else []
        if self.num_kept > cfg.total:
            gone.append(self._evict(next(iter(self._queue))))
        return [Remember(success=success, body=body), *gone]

    def end(self, stage: str) -> list[Remember]:
        """A stage has ended: what it remembered is drawn no more."""
        return [self._evict(key) for key in list(self._queue) if self._known[key].success.stage == stage]

    def forget(self, step: int) -> None:
        """The batches up to `step` are reported: tokens that only they need are in the journal."""
        gone = [key for key, one in self._known.items() if not one.success.kept and one.success.step <= step]
        for key in gone:
            del self._known[key]

    # --- inside --------------------------------------------------------------------------------------------------

    def _add(self, one: Remember) -> None:
        success = one.success
        self._known[success.key] = one
        if success.kept:
            self._queue[success.key] = None
            self._of_prompt.setdefault((success.stage, success.place), {})[success.key] = None

    def _change(self, key: Key, **changes: int | bool) -> Remember:
        """Answers the record, which is without the body: the journal has that."""
        one = self._known[key]
        success: Success = msgspec.structs.replace(one.success, **changes)
        self._known[key] = Remember(success=success, body=one.body)
        return Remember(success=success)

    def _evict(self, key: Key) -> Remember:
        changed = self._change(key, kept=False)
        place = changed.success.stage, changed.success.place
        del self._queue[key], self._of_prompt[place][key]
        if not self._of_prompt[place]:
            del self._of_prompt[place]
        return changed


def mended(groups: list[VerifiedGroup], replayed: list[Replayed], bodies: dict[Key, Judged]) -> list[VerifiedGroup]:
    """The groups of a batch with its successes in their places; a success keeps its log-probs, versions and sampler."""
    stands_in = {one.group_id: one for one in replayed}
    return [
        _mended(group, one, bodies[one.source]) if (one := stands_in.get(group.group.group_id)) else group
        for group in groups
    ]


def _mended(whole: VerifiedGroup, one: Replayed, body: Judged) -> VerifiedGroup:
    rollouts, verdicts = list(whole.group.rollouts), list(whole.verdicts)
    rollouts[one.rollout] = msgspec.structs.replace(
        body.rollout, index=one.rollout, replayed_from=f"{one.source_group}/{one.source_rollout}"
    )
    verdicts[one.rollout] = body.verdict
    return VerifiedGroup(group=msgspec.structs.replace(whole.group, rollouts=rollouts), verdicts=verdicts)
