"""Which tokens of a rollout count, and what the columns of several turns may hold."""

import math

import msgspec
import pytest

from rlsp_async import observations
from rlsp_async.columns import pack_floats, pack_ints
from rlsp_async.contents import PARTS_KEPT, TRANSCRIPT_BYTES, check_rollouts, find_guilty
from rlsp_async.errors import DataError
from rlsp_async.messages import Prompt, Rollout, RolloutGroup, Sampling, Verdict, VerifiedGroup


def rollout(**changes):
    """Two sampled tokens, an observation of two, one sampled token."""
    made = Rollout(
        index=0,
        token_ids=pack_ints([5, 6, 7, 8, 2]),
        logprobs=pack_floats([-1.0, -2.0, 0.0, 0.0, -4.0]),
        versions=pack_ints([3, 4, -1, -1, 4]),
        text="a",
        turns=pack_ints([0, 4]),
        claim={"correct": 1.0},
        ended="done",
    )
    return msgspec.structs.replace(made, **changes)


def group(one):
    return RolloutGroup(
        group_id=12,
        prompt=Prompt(prompt_id="p", task="t", text="q", answer="a"),
        prompt_ids=pack_ints([1, 9]),
        sampling=Sampling(rollouts=1, max_new_tokens=3),
        rollouts=[one],
    )


def test_what_was_observed_does_not_count():
    made = rollout()
    assert observations.sampled_tokens(made).tolist() == [True, True, False, False, True]
    assert observations.num_sampled(made) == 3
    assert observations.sampled_versions(made).tolist() == [3, 4, 4]
    assert observations.sampled_logprobs(made).tolist() == [-1.0, -2.0, -4.0]
    assert observations.num_turns(made) == 2
    assert observations.has_observations(group(made))


def test_without_turns_every_token_counts():
    plain = rollout(turns=b"", versions=pack_ints([-1] * 5))
    assert observations.num_sampled(plain) == 5
    assert observations.sampled_tokens(plain).tolist() == [True] * 5
    assert observations.sampled_versions(plain).tolist() == [-1] * 5
    assert observations.num_turns(plain) == 1
    assert not observations.has_observations(group(plain))


def test_turns_are_taken_and_only_what_was_sampled_is_checked():
    assert check_rollouts(group(rollout()), 10, 4, 3, max_turns=2) == (3, 4)
    odd = rollout(logprobs=pack_floats([-1.0, -2.0, math.nan, 3e38, -4.0]))
    assert check_rollouts(group(odd), 10, 4, 3, max_turns=2) == (3, 4)
    first_seen = rollout(versions=pack_ints([-1, 4, -1, -1, 4]), turns=pack_ints([1, 4]))
    assert check_rollouts(group(first_seen), 10, 4, 3, max_turns=2) == (4, 4)
    touching = rollout(versions=pack_ints([4] * 5), turns=pack_ints([0, 2, 4]))
    assert check_rollouts(group(touching), 10, 4, 5, max_turns=3) == (4, 4)


HOSTILE = [
    ({"turns": pack_ints([0])}, "a sampled token follows an observation"),
    ({"turns": pack_ints([0, 2])}, "begins with a token that nobody sampled"),
    ({"turns": pack_ints([0, 5])}, "do not rise"),
    ({"turns": pack_ints([4, 0])}, "do not rise"),
    ({"turns": pack_ints([-1, 0, 4])}, "do not rise"),
    ({"turns": b"abc"}, "are no numbers"),
    ({"turns": pack_ints([0, 1, 4])}, "3 turns, at most 2"),
    ({"versions": pack_ints([-1] * 5), "turns": pack_ints([0])}, "nobody sampled"),
    ({"versions": pack_ints([3, 4, -2, -1, 4])}, "4 tokens, at most 3"),
    ({"versions": pack_ints([3, 5, -1, -1, 4])}, "version 5"),
    ({"versions": pack_ints([3, 4, 4, 4, 4])}, "5 tokens, at most 3"),
    ({"token_ids": pack_ints([5, 6, 10, 8, 2])}, "token id 10"),
    ({"logprobs": pack_floats([-1.0, math.nan, 0.0, 0.0, -4.0])}, "not finite"),
    ({"claim": {"correct": math.nan}}, "not a finite number"),
    ({"claim": {"correct": -1e300}}, "not a finite number"),
    ({"claim": {"x" * 65: 1.0}}, "names of at most"),
    ({"claim": {str(n): 1.0 for n in range(PARTS_KEPT + 1)}}, "65 parts"),
    ({"transcript": b"x" * (TRANSCRIPT_BYTES + 1)}, "65,537 bytes"),
]


@pytest.mark.parametrize(("change", "why"), HOSTILE)
def test_what_a_hostile_sampler_says_of_its_turns_is_refused(change, why):
    with pytest.raises(DataError, match=why) as refused:
        check_rollouts(group(rollout(**change)), 10, 4, 3, max_turns=2)
    assert "group 12" in str(refused.value)


def test_a_run_without_an_environment_takes_none_of_it():
    with pytest.raises(DataError, match="this run has none"):
        check_rollouts(group(rollout()), 10, 4, 3)


def test_the_learner_checks_the_turns_again():
    verified = VerifiedGroup(group=group(rollout()), verdicts=[Verdict(status="correct", parts={"correct": 1.0})])
    assert find_guilty([verified], 10) == {}
    odd = msgspec.structs.replace(verified, group=group(rollout(turns=pack_ints([0]))))
    assert "a sampled token follows an observation" in find_guilty([odd], 10)[12]
    garbage = rollout(logprobs=pack_floats([-1.0, -2.0, math.nan, 3e38, -4.0]))
    assert find_guilty([msgspec.structs.replace(verified, group=group(garbage))], 10) == {}
