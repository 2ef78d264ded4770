"""A verifier of the user's own that runs what a model wrote in the checker itself, as users do."""

from __future__ import annotations

from rlsp_async.verifying.code.runner import run_source

VERSION = "1"


def score(prompt: str, response: str, answer: str) -> float:
    namespace: dict[str, object] = {}
    run_source(response, "response.py", namespace)
    return float(namespace["f"](1) == answer)  # type: ignore[operator]
