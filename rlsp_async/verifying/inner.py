"""Verifiers that stand around another one: `format`, `length` and `abstain` add parts to what `inner` says.

inner = load_inner("math", {})
with_parts(inner.judge(prompt, response, answer), length=0.5)
"""

from __future__ import annotations

from typing import Any

import msgspec

from rlsp_async.errors import ConfigError
from rlsp_async.messages import Verdict
from rlsp_async.verifying.base import Verifier, load_verifier


def load_inner(name: str, options: dict[str, Any]) -> Verifier:
    """The inner verifier. Raises ConfigError for one that does not run in the fast lane: the outer one does."""
    inner = load_verifier(name, options)
    if inner.lane != "fast":
        raise ConfigError(
            f"task.verifier_options.inner: {name!r} runs in the {inner.lane} lane, and only one of the "
            "fast lane can stand inside another verifier"
        )
    return inner


def with_parts(verdict: Verdict, **parts: float) -> Verdict:
    """The verdict with more parts; one on the verifier (timeout, error) stays as it is."""
    return msgspec.structs.replace(verdict, parts={**verdict.parts, **parts}) if verdict.is_true else verdict
