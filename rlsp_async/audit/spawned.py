"""Check of spawned groups: each has a parent that was judged before, and no rollout has two children."""

from __future__ import annotations

import msgspec

from rlsp_async.audit.finding import Finding, Offences
from rlsp_async.audit.history import History
from rlsp_async.messages import RolloutGroup
from rlsp_async.replay.records import GroupRecord

_head = msgspec.msgpack.Decoder(GroupRecord).decode
_body = msgspec.msgpack.Decoder(RolloutGroup).decode


def check_spawned(history: History) -> Finding:
    """One pass over the heads, and over the kept tokens of children. What cannot be decoded is G1's finding."""
    found = Offences("spawn", "children have one judged parent each")
    heads = {head.group_id: head for head in _heads(history)}
    children = [head for head in heads.values() if head.parent]
    taken: dict[str, int] = {}
    for child in children:
        wrong = _wrong(child, heads)
        if wrong:
            found.add(wrong, group=child.group_id)
        if taken.setdefault(child.parent, child.group_id) != child.group_id:
            found.add(f"group {taken[child.parent]} is a child of the same rollout", group=child.group_id)
        if _stamps(history, child.group_id) - {child.parent}:
            found.add(f"its rollouts do not say that they come from {child.parent}", group=child.group_id)
    return found.finding(f"{len(children):,} children", applies=bool(children))


def _heads(history: History) -> list[GroupRecord]:
    heads = []
    for (blob,) in history.rows("SELECT head FROM groups"):
        try:
            heads.append(_head(blob))
        except msgspec.DecodeError:
            continue  # G1 says so
    return heads


def _wrong(child: GroupRecord, heads: dict[int, GroupRecord]) -> str:
    """What is wrong with a child's parent; empty when nothing is."""
    group, _, place = child.parent.partition("/")
    parent = heads.get(int(group)) if group.isdecimal() and place.isdecimal() else None
    if parent is None or parent.group_id >= child.group_id:
        return f"its parent {child.parent!r} was not there before it"
    if parent.parent or parent.purpose != "train" or parent.provenance != "rollout" or parent.stage != child.stage:
        return f"its parent {child.parent} is no problem of its stage"
    if not parent.num_children or parent.num_verdicts <= int(place):
        return f"its parent {child.parent} was not judged, or knows of no child"
    return ""


def _stamps(history: History, group_id: int) -> set[str]:
    """The parents that its rollouts name; none when its tokens are gone."""
    for (blob,) in history.rows(f"SELECT body FROM bodies WHERE group_id = {group_id:d}"):
        try:
            return {rollout.parent for rollout in _body(blob).rollouts}
        except msgspec.DecodeError:
            continue  # G1 says so
    return set()
