"""A user's verifier with options, which may open connections."""

import os

from rlsp_async.config import Section
from rlsp_async.messages import Verdict
from rlsp_async.verifying.base import make_verdict

VERSION = "3"
LANE = "network"


class Config(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    accept: list[str] = []
    word_env: str = ""
    """Name of an environment variable that holds one more accepted word."""


class Scorer:
    def __init__(self, cfg: Config) -> None:
        self.accept = [*cfg.accept, *([os.environ[cfg.word_env]] if cfg.word_env else [])]

    def score(self, prompt: str, response: str, answer: str) -> Verdict:
        return make_verdict(response in [answer, *self.accept], response)


def load(cfg: Config) -> Scorer:
    return Scorer(cfg)
