"""What was trained, and where everything else went.

G4     every group is used as often as was charged, and never more often than allowed
G5     no group is trained too old, or too new
G14    the token account closes: every generated token is trained, dropped for a reason, or still there
slots  no more groups are alive than there are slots
"""

from __future__ import annotations

from collections import Counter

from rlsp_async.audit.history import Amendment, Finding, History, Violations
from rlsp_async.replay.records import Manifest

SINKS = ("trained", "stale", "truncated", "aborted", "quarantined", "evaluated", "no_signal", "waiting", "in_flight")
_OF_STATE = {
    "trained": "trained",
    "evaluated": "evaluated",
    "sampled": "waiting",
    "ready": "waiting",
    "training": "in_flight",
}
_OF_REASON = {
    "stale": "stale",
    "truncated": "truncated",
    "stage_end": "aborted",
    "no_signal": "no_signal",
    "sampler_error": "quarantined",
    "verifier_error": "quarantined",
    "quarantined": "quarantined",
}


class BatchChecks:
    """G4 and G5, in one pass over all manifests."""

    def __init__(self, history: History) -> None:
        self._history, self._stages = history, history.cfg.stages
        self._last_of = history.last_step_of()
        query = "SELECT group_id, uses, oldest, provenance FROM groups"
        self._groups = {row[0]: row[1:] for row in history.rows(query)}
        self._g4 = Violations("G4", "no group is trained more often than allowed")
        self._g5 = Violations("G5", "no group is trained too old, or too new")
        self._uses: Counter[int] = Counter()
        self._taken_out: Counter[int] = Counter()
        """For a step, how many groups were taken out of its batch."""
        self._lags: Counter[int] = Counter()

    def run(self) -> list[Finding]:
        """Checks all batches; one finding for each guarantee."""
        step = 0
        amendments = self._history.amendments()
        for amendment in amendments:
            self._amendment(amendment)
        for manifest in self._history.manifests():
            if manifest.step != step + 1:
                self._g4.add(f"the batches of steps {step + 1}..{manifest.step - 1} are gone", step=manifest.step)
            step = manifest.step
            self._manifest(manifest)
        for kind, number in self._history.damaged:
            self._g4.add(f"its {kind} cannot be decoded", step=number)
        self._charges()
        self._steps(step)
        num_out = self._taken_out.total()
        taken_out = f"; {num_out:,} groups were taken out of their batches" if num_out else ""
        most = max(self._uses.values(), default=0)
        allowed = max(stage.max_uses for stage in self._stages.values())
        lags = ", ".join(f"{lag}: {num:,}" for lag, num in sorted(self._lags.items()))
        return [
            self._g4.finding(
                f"{step:,} batches, {self._uses.total():,} uses of {len(self._uses):,} groups, "
                f"at most {most} of {allowed} each" + taken_out
            ),
            self._g5.finding(f"groups by lag {{{lags}}}", applies=bool(self._lags)),
        ]

    def _manifest(self, manifest: Manifest) -> None:
        stage = self._stages.get(manifest.stage)
        if stage is None:
            self._g4.add(f"a batch of stage {manifest.stage!r}, which the run does not have", step=manifest.step)
            return
        if manifest.last_of_stage != (manifest.step == self._last_of[manifest.stage]):
            self._g4.add("its mark as the last batch of its stage is wrong", step=manifest.step)
        if len(set(manifest.groups)) != len(manifest.groups):
            self._g4.add("a group is in it twice", step=manifest.step)
        whole = stage.groups_per_step - self._taken_out[manifest.step]
        if not len(manifest.groups) == len(manifest.oldest) == len(manifest.uses) == whole:
            self._g4.add(f"it has {len(manifest.groups)} groups of {whole}", step=manifest.step)
            return
        for group_id, oldest, uses in zip(manifest.groups, manifest.oldest, manifest.uses, strict=True):
            self._uses[group_id] += 1
            if uses != self._uses[group_id] or uses > stage.max_uses:
                self._g4.add(
                    f"its use number {self._uses[group_id]} of {stage.max_uses}, the batch says {uses}",
                    group=group_id,
                    step=manifest.step,
                )
            self._lag(manifest.step, group_id, oldest, stage.max_lag)

    def _amendment(self, amendment: Amendment) -> None:
        """A group that was taken out of a batch was in it, has a reason, and is not in training."""
        self._taken_out[amendment.step] += len(amendment.groups)
        if not amendment.why or not set(amendment.groups) <= set(amendment.former.groups):
            self._g4.add("groups were taken out without a reason, or were not in the batch", step=amendment.step)

    def _lag(self, step: int, group_id: int, oldest: int, max_lag: int) -> None:
        known = self._groups.get(group_id)
        if known is None:
            self._g4.add("it was trained, and the journal has no such group", group=group_id, step=step)
            return
        if known[1] != oldest:
            self._g5.add(
                f"its oldest token is of version {known[1]}, the batch says {oldest}", group=group_id, step=step
            )
        if known[2] == "demonstration":
            return
        lag = step - 1 - oldest
        self._lags[lag] += 1
        if not 0 <= lag <= max_lag:
            self._g5.add(f"lag {lag}, outside 0..{max_lag}", group=group_id, step=step)

    def _charges(self) -> None:
        """Compares the uses in the groups' rows with the batches."""
        for group_id, (uses, _, _) in self._groups.items():
            if uses != self._uses[group_id]:
                self._g4.add(f"charged {uses} times, and in {self._uses[group_id]} batches", group=group_id)

    def _steps(self, last_manifest: int) -> None:
        """Every step that was reported needs a batch that was stored before."""
        for number, (step,) in enumerate(self._history.rows("SELECT step FROM steps ORDER BY step"), start=1):
            if step != number:
                self._g4.add(f"the report of step {number} is gone", step=step)
                return
            if step > last_manifest:
                self._g4.add("it was trained, and its batch was never stored", step=step)


# --- accounts --------------------------------------------------------------------------------------------------------


def token_account(history: History) -> dict[str, int]:
    """The token account.

    Returns: `generated`, counted when the tokens arrived, then the tokens of each sink, from the rows of their groups.
    """
    account: Counter[str] = Counter()
    query = "SELECT state, reason, sum(num_tokens), sum(num_wasted_tokens) FROM groups GROUP BY 1, 2"
    for state, reason, tokens, wasted in history.rows(query):
        sink = _OF_STATE.get(state) or _OF_REASON.get(reason)
        if sink is not None:
            account[sink] += tokens
        account["aborted"] += wasted
    generated = history.rows("SELECT value FROM cursors WHERE name = 'generated'")
    return {"generated": generated[0][0] if generated else 0, **{sink: account[sink] for sink in SINKS}}


def account_text(account: dict[str, int]) -> str:
    """The account as one line: generated 10 = trained 6 + stale 0 + ..."""
    return f"generated {account['generated']:,} = " + " + ".join(
        f"{name.replace('_', ' ')} {account[name]:,}" for name in SINKS
    )


def check_account(history: History) -> list[Finding]:
    """Checks the token account, and the number of groups against the slots."""
    account = token_account(history)
    found = Violations("G14", "the token account closes")
    missing = account["generated"] - sum(account[name] for name in SINKS)
    if missing:
        found.add(f"{abs(missing):,} tokens {'are unaccounted for' if missing > 0 else 'came from nowhere'}", **account)
    return [found.finding(account_text(account)), _slots(history)]


def _slots(history: History) -> Finding:
    found = Violations("slots", "no more groups are alive than there are slots")
    query = "SELECT stage, count(*) FROM groups WHERE dead = 0 AND purpose = 'train' GROUP BY stage"
    alive = dict(history.rows(query))
    for stage, num in alive.items():
        capacity = history.cfg.stages[stage].capacity if stage in history.cfg.stages else 0
        if num > capacity:
            found.add(f"{num} groups are alive in {capacity} slots", stage=stage)
    ends = dict(history.rows("SELECT state, count(*) FROM groups WHERE purpose = 'train' AND dead = 1 GROUP BY state"))
    [(issued,)] = history.rows("SELECT count(*) FROM groups WHERE purpose = 'train'")
    return found.finding(
        f"issued {issued:,} = trained {ends.get('trained', 0):,} + dropped "
        f"{ends.get('dropped', 0):,} + alive {sum(alive.values()):,}"
    )
