"""A task as a user would write it: one file."""

from __future__ import annotations

from rlsp_async.config import Section
from rlsp_async.messages import Prompt
from rlsp_async.tasks.base import Split, no_demonstration


class Config(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    word: str


class Echo:
    name = "echo"
    verifier = "exact"

    def __init__(self, cfg: Config, seed: int) -> None:
        self._text = f"{cfg.word} {seed}"

    def size(self, split: Split) -> int | None:
        return 1

    def prompt(self, split: Split, index: int) -> Prompt:
        return Prompt(prompt_id=f"echo/{split}/{index}", task="echo", text=self._text, answer=self._text)

    def demonstration(self, index: int) -> tuple[Prompt, str]:
        raise no_demonstration("echo")

    def tokenizer(self) -> None:
        return None


def load(cfg: Config, seed: int) -> Echo:
    return Echo(cfg, seed)
