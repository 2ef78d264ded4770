"""Verifier of length: 1 between `least` and `most`, falling to 0 outside, as the part "length".

    least 100, most 400:   0 words -> 0, 50 -> .5, 100 to 400 -> 1, 600 -> .5, 800 and more -> 0

Alone, a response within the bounds is `correct`; with `inner` the verdict is the inner verifier's and has that part.
"""

from __future__ import annotations

from typing import Any, Literal

from rlsp_async.config import Section
from rlsp_async.messages import Verdict
from rlsp_async.verifying.base import load_inner, unparsable, with_parts

VERSION = "1"
LANE = "fast"


class LengthConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The bounds."""

    least: int = 0
    most: int = 0
    """0: no upper bound."""
    unit: Literal["words", "characters"] = "words"
    """Words are what blanks separate."""
    of: Literal["response", "thinking", "answer"] = "response"
    """All of it, what stands before the last `</think>`, or what follows it."""
    inner: str = ""
    """Verifier of the answer; empty: the length is all."""
    inner_options: dict[str, Any] = {}

    def __post_init__(self) -> None:
        if self.least < 0 or self.most < 0 or (not self.least and not self.most):
            raise ValueError("set least or most above 0")
        if self.most and self.most < self.least:
            raise ValueError(f"most {self.most} is below least {self.least}")


Config = LengthConfig


class LengthVerifier:
    """A verifier with its options."""

    def __init__(self, cfg: LengthConfig) -> None:
        self._cfg = cfg
        self._inner = load_inner(cfg.inner, cfg.inner_options) if cfg.inner else None

    def score(self, prompt: str, response: str, answer: str) -> Verdict:
        """The verdict."""
        num = self._measure(response)
        share = within(num, self._cfg.least, self._cfg.most)
        if self._inner is not None:
            return with_parts(self._inner.judge(prompt, response, answer), length=share)
        if not response.strip():
            return unparsable("empty response", length=share)
        return Verdict(
            status="correct" if share == 1.0 else "wrong",
            extracted=str(num),
            parts={"correct": float(share == 1.0), "format": 1.0, "length": share},
        )

    def _measure(self, response: str) -> int:
        thinking, mark, rest = response.rpartition("</think>")
        text = {"response": response, "thinking": thinking if mark else "", "answer": rest}[self._cfg.of]
        return len(text.split()) if self._cfg.unit == "words" else len(text.strip())


def within(num: int, least: int, most: int) -> float:
    """1 between the bounds, num / least below, 2 - num / most above, never below 0."""
    if num < least:
        return num / least
    return 1.0 if not most or num <= most else max(0.0, 2.0 - num / most)


def load(cfg: LengthConfig) -> LengthVerifier:
    """The verifier."""
    return LengthVerifier(cfg)
