"""A problem and one response to it as a prompt: is the response right? For tasks in free text, graded by `math`.

    verification_prompt(prompt, "... so \\boxed{4}", verdict).answer == "1"

RISE, arXiv:2505.13445, section 3, in words of our own. The model rates the response by the rules by which it was itself
rated: 1 for a right final answer, -0.5 for a wrong one, -1 for none. The paper's rules speak of an answer in a box; the
verifier `math` finds answers outside of boxes too, and the rules must say what the label says. The rating is compared
as a number, so "1.0" is 1. The response stands between fences that are longer than any in it, and nothing is ever cut.
"""

from __future__ import annotations

import re

import msgspec

from rlsp_async.messages import Prompt, Verdict

VERIFIED_BY = "math"
RATINGS = {"correct": "1", "wrong": "-0.5", "unparsable": "-1"}
"""Status of the verdict -> the rating that is right."""

TEMPLATE = """\
Here are a problem and a response to it. Rate the response.

Problem:
{fence}
{problem}
{fence}

Response:
{fence}
{response}
{fence}

The rating follows three rules:
1. No final answer can be found in the response: the rating is -1.
2. It gives a final answer, and that answer is wrong: the rating is -0.5.
3. It gives a final answer, and that answer is right: the rating is 1.

First check the response in a few sentences, working out for yourself what you doubt. Then put the rating, and nothing \
else, in \\boxed{}."""
_FIELDS = re.compile(r"\{(fence|problem|response)\}")
_TICKS = re.compile(r"`{3,}")


def verification_prompt(prompt: Prompt, response: str, verdict: Verdict) -> Prompt | None:
    """The same message form as the problem's; None for a verdict that is none on the answer."""
    rating = RATINGS.get(verdict.status)
    if rating is None:
        return None
    texts = {"fence": fence_for(prompt.text, response), "problem": prompt.text, "response": response}
    text = _FIELDS.sub(lambda match: texts[match[1]], TEMPLATE)
    return msgspec.structs.replace(prompt, text=text, answer=rating)


def fence_for(*texts: str) -> str:
    """Three backticks, or one more than the longest run in the texts."""
    return "`" * max((len(run) + 1 for text in texts for run in _TICKS.findall(text)), default=3)
