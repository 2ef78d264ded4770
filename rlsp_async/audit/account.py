"""G14: the token account closes, and the slot law holds."""

from __future__ import annotations

from collections import Counter

from rlsp_async.audit.finding import Finding, Offences
from rlsp_async.audit.history import History

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


def token_account(history: History) -> dict[str, int]:
    """`generated`, as it was counted when tokens arrived, then where they are by the rows of their groups."""
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
    """generated 10 = trained 6 + stale 0 + ..."""
    return f"generated {account['generated']:,} = " + " + ".join(
        f"{name.replace('_', ' ')} {account[name]:,}" for name in SINKS
    )


def check_account(history: History) -> list[Finding]:
    """The account in tokens, and the law of the slots in groups."""
    account = token_account(history)
    found = Offences("G14", "the token account closes")
    missing = account["generated"] - sum(account[name] for name in SINKS)
    if missing:
        found.add(f"{abs(missing):,} tokens {'are unaccounted for' if missing > 0 else 'came from nowhere'}", **account)
    return [found.finding(account_text(account)), _slots(history)]


def _slots(history: History) -> Finding:
    found = Offences("slots", "no more groups are alive than there are slots")
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
