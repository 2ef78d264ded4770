"""Hotter and colder in turn (docs/replay.md, "Your own")."""

from rlsp_async.config import Section


class Config(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    step: float = 0.25


class Swing:
    def __init__(self, cfg, temperature):
        self.cfg, self.temperature, self.judged = cfg, temperature, 0

    def draw(self, cursor):
        return self.temperature + self.cfg.step * (cursor % 2)

    def observe(self, group, verdicts):
        self.judged += len(verdicts)
        return str(self.judged).encode()

    def restore(self, row):
        self.judged = int(row)

    def figures(self):
        return {"judged": float(self.judged)}


def load(cfg, seed, temperature):
    return Swing(cfg, temperature)
