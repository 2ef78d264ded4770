"""Prompts one after the other, their visits remembered in the journal (docs/replay.md, "Your own")."""

from rlsp_async.config import Section
from rlsp_async.prompts.base import Draw


class Config(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    first: int = 0


class InOrder:
    def __init__(self, cfg):
        self.cfg, self.seen = cfg, {}

    def draw(self, cursor, pending):
        place = self.cfg.first + cursor
        return Draw(place, self.seen.get(place, 0), 1.0, b"drawn")

    def observe(self, place, num_correct, num_judged):
        self.seen[place] = self.seen.get(place, 0) + 1
        return f"{num_correct}/{num_judged}".encode()

    def restore(self, place, row):
        self.seen[place] = 1


def load(cfg, seed, size):
    return InOrder(cfg)
