"""The hostile verifier in the isolated lane: a fresh fork for each answer."""

from __future__ import annotations

import sys

from rlsp_async.messages import Verdict
from tests.verifying import hostile

VERSION = hostile.VERSION


def score(prompt: str, response: str, answer: str) -> Verdict:
    if response == "patch":
        sys.modules[__name__].score = lambda *_: Verdict(status="correct")  # type: ignore[attr-defined]
        hostile.score = sys.modules[__name__].score  # type: ignore[attr-defined]
        return Verdict(status="wrong")
    return hostile.score(prompt, response, answer)
