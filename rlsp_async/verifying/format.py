"""Verifier of form: the tags that a response must have, each once and in order. The answer itself is not looked at.

    tags = ["think", "answer"]      "<think>...</think> <answer>...</answer>"

Alone, it calls a response `correct` when every rule holds. With `inner`, the verdict is that of the inner verifier, the
part "format" is the share of rules that hold, and with `strict` a right answer in a wrong form is wrong.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from rlsp_async.config import Section
from rlsp_async.config.ranges import FieldName, FreeText, PluginName
from rlsp_async.messages import Verdict
from rlsp_async.verifying.base import add_parts, load_inner, make_unparsable

VERSION = "1"
LANE = "fast"


class FormatConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `format`: the rules."""

    tags: tuple[FieldName, ...] = ("think", "answer")
    """Each `<tag>...</tag>` must occur once, in this order, and not be empty."""
    prompt_opens: bool = False
    """Whether the prompt ends with the first opening tag, so that the response begins inside it."""
    text_outside: bool = False
    """Whether words may stand outside the tags."""
    pattern: FreeText = ""
    """A regular expression that must match somewhere in the response; empty: no such rule."""
    inner: PluginName = ""
    """Verifier of the answer; empty: only the form counts."""
    inner_options: dict[str, Any] = {}
    """Options of the inner verifier, decoded by its `Config`."""
    strict: bool = False
    """Whether, with `inner`, a right answer in a wrong form is wrong."""

    def __post_init__(self) -> None:
        bad = [tag for tag in self.tags if not re.fullmatch(r"[A-Za-z][\w-]*", tag)]
        if bad or len(set(self.tags)) < len(self.tags):
            raise ValueError(f"tags must be different names of letters, digits and hyphens, without brackets: {bad}")
        if not self.tags and not self.pattern:
            raise ValueError("there is no rule: set tags or pattern")
        try:
            re.compile(self.pattern)
        except re.error as e:
            raise ValueError(f"pattern {self.pattern!r} is not a regular expression: {e}") from None


Config = FormatConfig


class FormatVerifier:
    """The verifier `format`."""

    def __init__(self, cfg: FormatConfig) -> None:
        self._cfg = cfg
        self._inner = load_inner(cfg.inner, cfg.inner_options) if cfg.inner else None

    def score(self, prompt: str, response: str, answer: str) -> Verdict:
        """Returns the verdict; its detail names the first broken rule."""
        broken, num_rules = self._broken_rules(response)
        share = 1.0 - len(broken) / num_rules
        if self._inner is None:
            if not response.strip():
                return make_unparsable("empty response")
            return Verdict(
                status="wrong" if broken else "correct",
                detail=broken[0] if broken else "",
                parts={"correct": float(not broken), "format": share},
            )
        verdict = add_parts(self._inner.judge(prompt, response, answer), format=share)
        if self._cfg.strict and broken and verdict.status == "correct":
            return msgspec.structs.replace(
                verdict, status="wrong", detail=broken[0], parts={**verdict.parts, "correct": 0.0}
            )
        return verdict

    def _broken_rules(self, response: str) -> tuple[list[str], int]:
        """The broken rules in words, and the number of all rules."""
        cfg = self._cfg
        text = f"<{cfg.tags[0]}>{response}" if cfg.prompt_opens and cfg.tags else response
        broken = [
            f"<{tag}> occurs {_count_tag(text, tag)} times, not once" for tag in cfg.tags if not _occurs_once(text, tag)
        ]
        num_rules = len(cfg.tags)
        if cfg.tags:
            num_rules += 2 - cfg.text_outside
            blocks = list(re.finditer(rf"<({'|'.join(map(re.escape, cfg.tags))})>(.*?)</\1>", text, re.S))
            if tuple(block[1] for block in blocks) != cfg.tags:
                broken.append(f"the tags do not follow each other as {', '.join(cfg.tags)}")
            if not cfg.text_outside and _has_text_outside(text, blocks):
                broken.append("there is text outside the tags")
        if cfg.pattern:
            num_rules += 1
            if not re.search(cfg.pattern, text):
                broken.append("the pattern is not found")
        return broken, num_rules


def _count_tag(text: str, tag: str) -> int:
    return max(text.count(f"<{tag}>"), text.count(f"</{tag}>"))


def _occurs_once(text: str, tag: str) -> bool:
    """Whether the tag is opened once, closed once, and not empty."""
    if text.count(f"<{tag}>") != 1 or text.count(f"</{tag}>") != 1:
        return False
    inside = text.partition(f"<{tag}>")[2].partition(f"</{tag}>")
    return bool(inside[1] and inside[0].strip())


def _has_text_outside(text: str, blocks: list[re.Match[str]]) -> bool:
    at, left = 0, []
    for block in blocks:
        left.append(text[at : block.start()])
        at = block.end()
    return any(piece.strip() for piece in [*left, text[at:]])


def load(cfg: FormatConfig) -> FormatVerifier:
    """Makes the verifier."""
    return FormatVerifier(cfg)
