"""The verifier `ops`, which takes SECONDS for each answer: a run with it cannot be over before a known time.

For tests that must disturb or stop a run before its end, on the fastest machine as well.
"""

import time

from rlsp_async.messages import Verdict
from rlsp_async.verifying import ops

VERSION = "1"
LANE = "fast"
SECONDS = 0.02


def score(prompt: str, response: str, answer: str) -> Verdict:
    time.sleep(SECONDS)
    return ops.score(prompt, response, answer)
