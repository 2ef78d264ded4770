"""Sums of two numbers."""

import random

from rlsp_async.config import Section
from rlsp_async.messages import Prompt
from rlsp_async.tasks.base import no_demonstration


class Config(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    largest: int = 99


class Sums:
    name, verifier = "sums", "mine.reward"

    def __init__(self, cfg, seed):
        self.cfg, self.seed = cfg, seed

    def size(self, split):
        return None if split == "train" else 500  # None: endless

    def prompt(self, split, index):
        rng = random.Random(f"{self.seed}/{split}/{index}")
        a, b = rng.randint(0, self.cfg.largest), rng.randint(0, self.cfg.largest)
        return Prompt(
            prompt_id=f"sums/{split}/{index}",
            task="sums",
            text=f"What is {a} + {b}?",
            answer=str(a + b),
            index=index,
            chat=True,
        )

    def demonstration(self, index):
        raise no_demonstration("sums")

    def tokenizer(self):
        return None  # the model brings its own


def load(cfg, seed):
    return Sums(cfg, seed)
