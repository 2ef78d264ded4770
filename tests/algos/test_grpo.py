"""GRPO's options and presets; numbers worked out by hand are in test_contract.py."""

import math

import pytest
import torch
from msgspec.structs import replace as replaced

from rlsp_async import config
from rlsp_async.algos import base, grpo, maths
from rlsp_async.errors import ConfigError
from tests.algos import given as make


def preset(name):
    return base.load_algorithm(config.AlgorithmChoice(name="grpo", preset=name))[1]


def slow(cfg, given):
    """The loss token by token; autograd through rho and k3 only."""
    loss = torch.zeros(())
    for t in range(len(given.logp)):
        if not given.mask[t]:
            continue
        rho, adv = torch.exp(given.logp[t] - given.old[t]), given.adv[t]
        clipped = rho.clamp(1 - cfg.clip_low, 1 + cfg.clip_high)
        weight = min(math.exp(given.old[t] - given.behaviour[t]), cfg.weight_cap) if cfg.weight_cap else 1.0
        d = given.reference[t] - given.logp[t]
        gain = torch.minimum(rho * adv, clipped * adv)
        if cfg.dual_clip and adv < 0:
            gain = torch.maximum(gain, cfg.dual_clip * adv)
        loss = loss + given.share[t] * (-weight * gain + cfg.kl_coef * (torch.exp(d) - d - 1))
    return loss


@pytest.mark.parametrize("name", ["", *grpo.PRESETS])
def test_gradient_is_that_of_a_slow_reference(name):
    given, cfg = make.drawn(), preset(name)
    loss, _ = grpo.token_loss(cfg, given)
    torch.testing.assert_close(loss, slow(cfg, given))
    torch.testing.assert_close(make.gradient(loss, given), make.gradient(slow(cfg, given), given))


def test_dr_grpo_divides_neither_by_std_nor_by_length():
    cfg = preset("dr_grpo")
    batch = make.batch([1.0, 0, 0, 1], [0] * 4, [1, 2, 1, 1])
    assert grpo.advantages(cfg, batch).adv_N.tolist() == [0.5, -0.5, -0.5, -0.5, 0.5]
    assert maths.shares(batch.length_B, cfg.aggregation, cfg.horizon_tokens).tolist() == [1 / (4 * 4096)] * 5


def test_dapos_length_charge_by_hand():
    length = torch.tensor([16384, 17408, 20480, 30000])
    assert grpo.length_charge(length, 20480, 4096).tolist() == [0.0, 0.25, 1.0, 1.0]


def test_a_group_that_differs_in_length_alone_stays_flat():
    cfg = grpo.Config(divide_by_std=False, limit_tokens=4, buffer_tokens=2)
    out = grpo.advantages(cfg, make.batch([1.0, 1, 1, 0], [0, 0, 1, 1], [1, 4, 3, 1]))
    assert out.keep_B.tolist() == [False, False, True, True]
    assert out.adv_N[5:].tolist() == [0.25, 0.25, 0.25, -0.25]
    assert out.stats["length_charge"] == pytest.approx(0.375)


def test_the_published_presets_correct_nothing_and_only_deepseekmath_keeps_a_reference():
    assert [preset(n).carries() for n in ("", "deepseekmath", "dr_grpo", "dapo")] == ["behaviour"] + ["step"] * 3
    assert grpo.needs(preset("deepseekmath")) == {"old", "reference"}
    assert grpo.needs(preset("dapo")) == {"old"}
    assert (preset("dapo").clip_low, preset("dapo").clip_high, preset("dapo").aggregation) == (0.2, 0.28, "token_mean")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"limit_tokens": 10}, "buffer_tokens must be above 0"),
        ({"aggregation": "horizon"}, "set it to sampling.max_new_tokens"),
    ],
)
def test_half_a_setting_is_refused(options, said):
    with pytest.raises(ConfigError, match=said):
        base.load_algorithm(config.AlgorithmChoice(name="grpo", options=options))


def test_arpo_group_with_one_replayed_success_by_hand():
    """R = (1, 0 x 7): (R - mean) / std with Bessel's correction is (2.474867, -.353552 x 7)."""
    batch = make.batch([1.0, *[0.0] * 7], [0] * 8, [1] * 8)
    for name in ("arpo_released", "arpo_corrected"):
        adv = grpo.advantages(preset(name), batch).adv_N
        assert adv.tolist() == pytest.approx([2.474867, *[-0.353552] * 7], abs=1e-5)


def test_arpo_presets_differ_in_the_weight_of_the_policy_that_sampled_alone():
    released, corrected = preset("arpo_released"), preset("arpo_corrected")
    assert (released.clip_low, released.clip_high, released.dual_clip, released.aggregation) == (
        0.2,
        0.3,
        3.0,
        "token_mean",
    )
    assert replaced(released, weight_cap=2.0) == corrected
    # present .5, beginning of the step .5, sampled with .1 and with 1: ratio 1; weights min(5, 2) and .5
    given = make.tokens([math.log(0.5)] * 2, [0, 1], behaviour=[math.log(0.1), 0.0], old=[math.log(0.5)] * 2)
    assert float(grpo.token_loss(released, given)[0].detach()) == pytest.approx(-1.0)
    assert float(grpo.token_loss(corrected, given)[0].detach()) == pytest.approx(-(2.0 + 0.5) / 2)


def test_dual_clip_bounds_what_a_negative_advantage_costs():
    loss = torch.tensor([5.0, -1.3, 2.0])  # ratio 5 with A -1 and 1, ratio 2 with A -1
    assert maths.dual_clipped(loss, torch.tensor([-1.0, 1.0, -1.0]), 3.0).tolist() == pytest.approx([3.0, -1.3, 2.0])
    with pytest.raises(ConfigError, match="dual_clip is a ratio above 1"):
        base.load_algorithm(config.AlgorithmChoice(name="grpo", options={"dual_clip": 0.5}))
