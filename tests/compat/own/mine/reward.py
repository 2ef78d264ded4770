"""The last word is the answer."""

from rlsp_async.messages import Verdict

VERSION = "1"


def score(prompt: str, response: str, answer: str) -> Verdict:
    words = response.split()
    if not words:
        return Verdict(status="unparsable", parts={"correct": 0.0}, detail="empty response")
    right = words[-1] == answer
    return Verdict(status="correct" if right else "wrong", parts={"correct": float(right)}, extracted=words[-1])
