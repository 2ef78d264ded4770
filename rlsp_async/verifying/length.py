"""Verifier of length: the part "length" is 1 between `least` and `most`, and falls to 0 outside.

    least 100, most 400:   0 words -> 0, 50 -> 0.5, 100 to 400 -> 1, 600 -> 0.5, 800 and more -> 0

Alone, it calls a response within the bounds `correct`. With `inner`, the verdict is that of the inner verifier with
this part added.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from rlsp_async.config import Section
from rlsp_async.config.ranges import PluginName, Range
from rlsp_async.messages import Verdict
from rlsp_async.verifying.base import add_parts, load_inner, make_unparsable

VERSION = "1"
LANE = "fast"


class LengthConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `length`: the bounds, and what is counted."""

    least: Annotated[int, Range(ge=0, le=10**9)] = 0
    """Lower bound."""
    most: Annotated[int, Range(ge=0, le=10**9)] = 0
    """Upper bound; 0: there is none."""
    unit: Literal["words", "characters"] = "words"
    """What is counted; words are separated by blanks."""
    of: Literal["response", "thinking", "answer"] = "response"
    """Which text: the whole response, what stands before the last `</think>`, or what follows it."""
    inner: PluginName = ""
    """Verifier of the answer; empty: only the length counts."""
    inner_options: dict[str, Any] = {}
    """Options of the inner verifier, decoded by its `Config`."""

    def __post_init__(self) -> None:
        if not self.least and not self.most:
            raise ValueError("set least or most above 0")
        if self.most and self.most < self.least:
            raise ValueError(f"most {self.most} is below least {self.least}")


Config = LengthConfig


class LengthVerifier:
    """The verifier `length`."""

    def __init__(self, cfg: LengthConfig) -> None:
        self._cfg = cfg
        self._inner = load_inner(cfg.inner, cfg.inner_options) if cfg.inner else None

    def score(self, prompt: str, response: str, answer: str) -> Verdict:
        """Returns the verdict."""
        num = self._measure(response)
        share = compute_share(num, self._cfg.least, self._cfg.most)
        if self._inner is not None:
            return add_parts(self._inner.judge(prompt, response, answer), length=share)
        if not response.strip():
            return make_unparsable("empty response", length=share)
        return Verdict(
            status="correct" if share == 1.0 else "wrong",
            extracted=str(num),
            parts={"correct": float(share == 1.0), "format": 1.0, "length": share},
        )

    def _measure(self, response: str) -> int:
        thinking, mark, rest = response.rpartition("</think>")
        text = {"response": response, "thinking": thinking if mark else "", "answer": rest}[self._cfg.of]
        return len(text.split()) if self._cfg.unit == "words" else len(text.strip())


def compute_share(num: int, least: int, most: int) -> float:
    """Computes the part "length": 1 between the bounds, num / least below, max(0, 2 - num / most) above.

    Args:
        num: number of words or characters.
        least: lower bound.
        most: upper bound; 0: none.
    """
    if num < least:
        return num / least
    return 1.0 if not most or num <= most else max(0.0, 2.0 - num / most)


def load(cfg: LengthConfig) -> LengthVerifier:
    """Makes the verifier."""
    return LengthVerifier(cfg)
