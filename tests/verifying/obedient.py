"""A verifier of the user's own that runs what a model wrote in the checker itself, as users do."""

from __future__ import annotations

VERSION = "1"


def score(prompt: str, response: str, answer: str) -> float:
    namespace: dict[str, object] = {}
    exec(response, namespace)
    return float(namespace["f"](1) == answer)  # type: ignore[operator]
