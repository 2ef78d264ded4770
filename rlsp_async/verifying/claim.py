"""Verifier that takes what the run's environment claims: the part "correct" of the `End` that it gave.

    claim {"correct": 1.0, "questions": 4.0}      -> correct
    claim {"score": 0.5}                          -> wrong, with the part "score"
    no claim, because the rollout came to no end  -> unparsable

The verdict names the environment and its version, "env:guess/1", as the one who judged.
"""

from __future__ import annotations

import msgspec

from rlsp_async.config import EnvironmentConfig, Section
from rlsp_async.config.ranges import FieldName
from rlsp_async.environments.base import load_environment
from rlsp_async.errors import ConfigError, DataError
from rlsp_async.messages import Verdict
from rlsp_async.verifying.base import make_unparsable, make_verdict

VERSION = "1"
LANE = "fast"


class ClaimConfig(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `claim`."""

    environment: FieldName = ""
    """The environment whose claims are judged. Empty: that of the run."""


Config = ClaimConfig


class ClaimVerifier:
    """The verifier `claim`."""

    def __init__(self, environment: str) -> None:
        self._name = f"env:{environment}"

    def score_claim(self, claim: dict[str, float], ended: str) -> Verdict:
        """Returns the verdict on what an environment claims of a rollout."""
        value = claim.get("correct", claim.get("score"))
        parts = {name: part for name, part in claim.items() if name not in ("correct", "format")}
        if value is None:
            verdict = make_unparsable(f"no claim; the rollout ended with {ended or 'nothing'}", **parts)
        else:
            verdict = make_verdict(value >= 1, "", **parts)
        return msgspec.structs.replace(verdict, verifier=self._name)

    def score(self, prompt: str, response: str, answer: str) -> Verdict:
        """Raises DataError: there is nothing to judge in a text alone."""
        raise DataError("the verifier 'claim' judges rollouts of an environment, and this text is of none")


def load(cfg: ClaimConfig) -> ClaimVerifier:
    """Makes the verifier. Raises ConfigError when there is no environment whose claims could be judged."""
    if not cfg.environment:
        raise ConfigError("task.verifier: 'claim' judges what an environment claims; name one: task.environment.name")
    return ClaimVerifier(load_environment(EnvironmentConfig(name=cfg.environment)).name)
