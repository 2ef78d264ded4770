"""Filtered fine-tuning: what is right, once, and not too often of one prompt."""

import pytest
import torch

from rlsp_async.algos import filtered, groups, sft
from rlsp_async.algos.corrections import CorrectionsConfig
from tests.algos import given as make


def batch(**columns):
    """Prompt 0 has two groups (rounds), prompt 1 one; the texts 10 and 20 were found twice."""
    made = {"prompt_B": [0, 0, 0, 0, 0, 1], "text_B": [10, 20, 10, 20, 30, 40], **columns}
    return make.batch([1, 0, 1, 1, 1, 0], [0, 0, 0, 1, 1, 2], [2, 1, 2, 1, 1, 3], **made)


def slow(cfg, given):
    """What D is, one rollout after the other."""
    kept, texts, num = [], set(), {}
    for reward, prompt, text in zip(given.reward_B.tolist(), given.prompt_B.tolist(), given.text_B.tolist(),
                                    strict=True):
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
    """The same text may be judged differently in two groups; what was wrong hides nothing."""
    assert filtered.advantages(filtered.Config(), batch()).keep_B[3]


@pytest.mark.parametrize(("options", "kept"), [
    ({"drop_duplicates": False}, [True, False, True, True, True, False]),
    ({"per_prompt": 2}, [True, False, False, True, False, False]),
    ({"per_prompt": 2, "drop_duplicates": False}, [True, False, True, False, False, False]),
    ({"threshold": 0.0}, [True, True, False, False, True, True]),
    ({"threshold": 1.5}, [False] * 6),
])
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
    assert groups.place(number, among).tolist() == [0, 0, 0, 1, 1]


def test_the_loss_is_sfts():
    given = make.drawn()
    loss, other = filtered.token_loss(filtered.Config(), given)[0], sft.token_loss(sft.Config(), given)[0]
    assert loss.item() == pytest.approx(other.item())
    torch.testing.assert_close(make.gradient(loss, given), torch.where(given.mask, -given.share, 0.0))


def test_a_negative_cap_is_refused():
    with pytest.raises(ValueError, match="per_prompt"):
        filtered.Config(per_prompt=-1)


def test_its_own_temperature_goes_with_no_correction():
    assert (filtered.Config().scored_at(), filtered.Config(temperature=1.0).scored_at()) == (0.0, 1.0)
    with pytest.raises(ValueError, match="0 beside corrections"):
        filtered.Config(temperature=1.0, corrections=CorrectionsConfig(mask="icepop"))
