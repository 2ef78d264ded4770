"""Filtered fine-tuning: right rollouts, each text once, at most `per_prompt` of a prompt; the balance score."""

import pytest
import torch

from rlsp_async.algos import base, baselines, filtered, sft
from rlsp_async.algos.corrections import CorrectionsConfig
from rlsp_async.errors import ConfigError
from rlsp_async.temperatures.bstar import balance_score
from tests.algos import given as make


def batch(**columns):
    """Prompt 0 has two groups (rounds), prompt 1 one; the texts 10 and 20 were found twice."""
    made = {"prompt_B": [0, 0, 0, 0, 0, 1], "text_B": [10, 20, 10, 20, 30, 40], **columns}
    return make.batch([1, 0, 1, 1, 1, 0], [0, 0, 0, 1, 1, 2], [2, 1, 2, 1, 1, 3], **made)


def slow(cfg, given):
    """D, one rollout after the other."""
    kept, texts, num = [], set(), {}
    for reward, prompt, text in zip(
        given.reward_B.tolist(), given.prompt_B.tolist(), given.text_B.tolist(), strict=True
    ):
        fits = not cfg.per_prompt or num.get(prompt, 0) < cfg.per_prompt
        kept.append(reward >= cfg.threshold and fits and not (cfg.drop_duplicates and text in texts))
        if kept[-1]:
            texts.add(text)
            num[prompt] = num.get(prompt, 0) + 1
    return kept


def test_duplicates_within_and_between_groups_are_dropped():
    out = filtered.advantages(filtered.Config(), batch())
    assert out.keep_B.tolist() == [True, False, False, True, True, False]
    assert out.adv_N.tolist() == [1.0] * 10
    assert out.stats == {"right_fraction": pytest.approx(4 / 6), "duplicate_fraction": 0.25, "solved_prompts": 1.0}


def test_a_wrong_rollout_is_no_first_of_its_text():
    """The same text may be judged differently in two groups; the wrong one does not make the right one a duplicate."""
    assert filtered.advantages(filtered.Config(), batch()).keep_B[3]


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"drop_duplicates": False}, [True, False, True, True, True, False]),
        ({"per_prompt": 2}, [True, False, False, True, False, False]),
        ({"per_prompt": 2, "drop_duplicates": False}, [True, False, True, False, False, False]),
        ({"threshold": 0.0}, [True, True, False, False, True, True]),
        ({"threshold": 1.5}, [False] * 6),
    ],
)
def test_options_by_hand(options, kept):
    assert filtered.advantages(filtered.Config(**options), batch()).keep_B.tolist() == kept


@pytest.mark.parametrize("seed", range(8))
def test_what_is_kept_is_what_a_loop_keeps(seed):
    g = torch.Generator().manual_seed(seed)
    draw = lambda most: torch.randint(most, (40,), generator=g)  # noqa: E731
    prompt = draw(4)
    rollouts = make.batch(draw(2).tolist(), draw(9).tolist(), [1] * 40, prompt_B=prompt, text_B=prompt * 7 + draw(7))
    for cfg in (filtered.Config(), filtered.Config(per_prompt=3), filtered.Config(per_prompt=2, drop_duplicates=False)):
        assert filtered.advantages(cfg, rollouts).keep_B.tolist() == slow(cfg, rollouts)


def test_place_counts_only_among():
    number, among = torch.tensor([5, 5, 7, 5, 7]), torch.tensor([True, False, True, True, True])
    assert baselines.occurrence_index(number, among).tolist() == [0, 0, 0, 1, 1]


def test_the_loss_is_sfts():
    given = make.drawn()
    loss, other = filtered.token_loss(filtered.Config(), given)[0], sft.token_loss(sft.Config(), given)[0]
    assert loss.item() == pytest.approx(other.item())
    torch.testing.assert_close(make.gradient(loss, given), torch.where(given.mask, -given.share, 0.0))


@pytest.mark.parametrize("option", ["per_prompt", "balance_target"])
def test_a_negative_cap_is_refused(option):
    with pytest.raises(ValueError, match=option):
        filtered.Config(**{option: -1})


def judged(reward, outcome, group, text):
    """Rollouts of one token whose reward is not their verdict."""
    terms = base.Terms(torch.tensor(outcome, dtype=torch.float32), torch.zeros(len(reward)), 0.5)
    return make.replace(make.batch(reward, group, [1] * len(reward), prompt_B=group, text_B=text), terms=terms)


GIVEN = judged([0.9, 0.7, 0.7, 0.4, 0.8, 0.6, 0.3], [1, 0, 1, 1, 0, 1, 0], [0, 0, 0, 0, 1, 1, 1], [1, 2, 3, 4, 5, 6, 7])
"""By hand, n* = 2: at .3 and .4 prompt 0 keeps 3 of 4 right, 1 * 3/4; prompt 1 at .3 1 of 3, .5 / 3, at .4 and .6 1 of
2, .5 / 2; at .6 prompt 0 keeps 2 of 3, 2/3; at .7 the same, and nothing of prompt 1 is right; from .8 one right one of
prompt 0, .5."""


@pytest.mark.parametrize(
    ("threshold", "score"),
    [
        (0.3, (3 / 4 + 1 / 6) / 2),
        (0.4, (3 / 4 + 1 / 4) / 2),
        (0.6, (2 / 3 + 1 / 4) / 2),
        (0.7, 2 / 3 / 2),
        (0.8, 0.5 / 2),
        (0.9, 0.5 / 2),
    ],
)
def test_the_balance_score_by_hand_and_as_the_temperatures_have_it(threshold, score):
    cfg = filtered.Config(balance_target=2)
    assert filtered.balance_score(cfg, GIVEN, threshold) == pytest.approx(score)
    kept = [i for i in range(7) if GIVEN.reward_B[i] >= threshold - 1e-6]
    groups_of = [[i for i in kept if GIVEN.prompt_B[i] == prompt] for prompt in (0, 1)]
    apart = [
        balance_score([str(GIVEN.text_B[i]) for i in of], [bool(GIVEN.terms.outcome_B[i]) for i in of], 2)
        for of in groups_of
    ]
    assert sum(apart) / 2 == pytest.approx(score)


def test_a_batch_chooses_the_threshold_with_the_best_balance():
    out = filtered.advantages(filtered.Config(threshold=0.0, balance_target=2), GIVEN)
    assert out.keep_B.tolist() == [True] * 6 + [False]
    assert (out.stats["threshold"], out.stats["balance"]) == (pytest.approx(0.4), pytest.approx(0.5))


def test_the_chosen_threshold_is_not_below_the_given_one_and_the_lowest_of_equals():
    out = filtered.advantages(filtered.Config(threshold=0.5, balance_target=2), GIVEN)
    assert out.stats["threshold"] == pytest.approx(0.6)
    flat = judged([0.2, 0.6, 0.8], [1, 0, 0], [0, 0, 0], [1, 2, 3])
    assert filtered.advantages(filtered.Config(threshold=0.5, balance_target=2), flat).stats["threshold"] == (
        pytest.approx(0.6)
    )
    none = filtered.advantages(filtered.Config(threshold=5.0, balance_target=2), GIVEN)
    assert not none.keep_B.any() and (none.stats["threshold"], none.stats["balance"]) == (5.0, 0.0)


def test_equal_texts_count_once_in_the_balance():
    twice = judged([1.0, 1.0, 0.5], [1, 1, 0], [0, 0, 0], [1, 1, 2])
    assert filtered.balance_score(filtered.Config(balance_target=2), twice, 0.5) == pytest.approx(0.5 * 0.5)


def test_of_very_many_rewards_some_are_tried(monkeypatch):
    monkeypatch.setattr(filtered, "MOST_THRESHOLDS", 3)
    out = filtered.advantages(filtered.Config(threshold=0.0, balance_target=2), GIVEN)
    assert out.stats["threshold"] == pytest.approx(0.3)  # of .3, .7 (third or fourth of six), .9


def test_who_does_not_say_what_is_right_has_no_balance():
    with pytest.raises(ConfigError, match="set balance_target = 0"):
        filtered.advantages(filtered.Config(balance_target=2), batch())


def test_its_own_temperature_goes_with_no_correction():
    assert (filtered.Config().scored_at(), filtered.Config(temperature=1.0).scored_at()) == (0.0, 1.0)
    with pytest.raises(ValueError, match="0 beside corrections"):
        filtered.Config(temperature=1.0, corrections=CorrectionsConfig(mask="icepop"))
