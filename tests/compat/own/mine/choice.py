"""The last that became ready is trained first (docs/replay.md, "Your own")."""

from rlsp_async.replay.selection.base import SelectedGroup, SelectionConfig


class Config(SelectionConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    weight: float = 1.0


def choose(cfg, ready, step, num, seed):
    heads = sorted(ready, key=lambda head: (-head.order, head.group_id))
    return [SelectedGroup(head, cfg.weight) for head in heads[:num]]
