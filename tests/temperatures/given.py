"""Hand-made groups for the tests of temperature schedules."""

from rlsp_async.columns import pack_floats, pack_ints
from rlsp_async.messages import Prompt, Rollout, RolloutGroup, Sampling, Verdict


def judged(temperature, rights, texts=None, logprob=-1.0):
    """A group of len(rights) rollouts of two tokens, and its verdicts."""
    texts = texts or [f"answer {i}" for i in range(len(rights))]
    rollouts = [
        Rollout(
            index=i,
            token_ids=pack_ints([7, 8]),
            logprobs=pack_floats([logprob] * 2),
            versions=pack_ints([0, 0]),
            text=text,
        )
        for i, text in enumerate(texts)
    ]
    prompt = Prompt(prompt_id="p", task="t", text="q", answer="a")
    group = RolloutGroup(
        group_id=1,
        prompt=prompt,
        prompt_ids=pack_ints([1]),
        rollouts=rollouts,
        sampling=Sampling(temperature=temperature, rollouts=len(rights)),
    )
    return group, [Verdict(status="correct" if right else "wrong", parts={"correct": float(right)}) for right in rights]
