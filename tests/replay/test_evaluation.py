"""Figures of an evaluation, by hand."""

from __future__ import annotations

import pytest

from rlsp_async.replay.evaluation import PromptScore, mean_over_prompts, pass_at_k, reported_ks, summarize


def test_pass_at_k_by_hand():
    assert pass_at_k(8, 0, 8) == 0.0
    assert pass_at_k(8, 1, 8) == 1.0
    assert pass_at_k(4, 1, 2) == pytest.approx(0.5)  # 1 - C(3,2)/C(4,2) = 1 - 3/6
    assert pass_at_k(5, 2, 3) == pytest.approx(0.9)  # 1 - C(3,3)/C(5,3) = 1 - 1/10
    with pytest.raises(ValueError, match="not defined"):
        pass_at_k(4, 1, 5)


def test_interval_is_over_prompts():
    # means 1, 0, .5, .5: mean .5, sample variance (.25 + .25) / 3, half width 1.96 * sqrt(.16667 / 4)
    result = mean_over_prompts([1.0, 0.0, 0.5, 0.5])
    assert result.mean == 0.5
    assert result.high - result.mean == pytest.approx(1.959964 * 0.2041241, rel=1e-6)
    assert result.mean - result.low == pytest.approx(result.high - result.mean)


def test_more_rollouts_of_the_same_answers_do_not_narrow_the_interval():
    few = [PromptScore(correct=[c], lengths=[1], truncated=[0]) for c in (1, 0, 1)]
    many = [PromptScore(correct=[c] * 8, lengths=[1] * 8, truncated=[0] * 8) for c in (1, 0, 1)]
    assert summarize(few)["pass_at_1"] == summarize(many)["pass_at_1"]


def test_summary_by_hand():
    scores = [
        PromptScore(correct=[1, 0], lengths=[10, 30], truncated=[0, 1], steps=[2, 4]),
        PromptScore(correct=[0, 0], lengths=[20, 20], truncated=[0, 0], steps=[]),
    ]
    row = summarize(scores)
    assert (row["num_prompts"], row["num_rollouts"]) == (2, 4)
    assert row["pass_at_1"]["mean"] == 0.25
    assert row["pass_at_2"]["mean"] == 0.5
    assert row["response_tokens"]["mean"] == 20.0
    assert row["truncated"]["mean"] == 0.25
    assert row["search_steps"] == {"mean": 3.0, "low": 3.0, "high": 3.0}


def test_the_interval_of_a_share_stays_between_0_and_1():
    scores = [PromptScore(correct=[c], lengths=[1], truncated=[0]) for c in (1, 1, 1, 0)]
    assert summarize(scores)["pass_at_1"]["high"] == 1.0
    assert summarize(scores)["pass_at_1"]["low"] == pytest.approx(0.75 - 1.959964 * 0.25)


def test_no_prompt_is_no_figure():
    assert summarize([]) == {"num_prompts": 0, "num_rollouts": 0}
    assert reported_ks(8) == [1, 2, 4, 8]
    assert reported_ks(6) == [1, 2, 4, 6]
