"""The correction stages: golden numbers, their order, whose ratio counts twice, and the whole-batch limits."""

import math

import pytest
import torch

from rlsp_async import config
from rlsp_async.algos import base, corrections, grpo, reinforce
from rlsp_async.algos.corrections import CorrectionsConfig, token_view
from rlsp_async.algos.stats import merge_stats, summarise
from rlsp_async.errors import ConfigError
from tests.algos import given as make


def view(ratios, rollout=None, adv=None, mask=None, lag=None, behaviour=-3.0):
    """Tokens with these ratios to a behaviour log-prob of -3."""
    num = len(ratios)
    old = torch.full((num,), behaviour)
    return token_view(
        old + torch.tensor(ratios).log(),
        old,
        torch.tensor(adv or [1.0] * num),
        torch.tensor(mask or [True] * num),
        torch.tensor(rollout or [0] * num),
        None if lag is None else torch.tensor(lag),
    )


def factor(cfg, seen):
    return corrections.correct(cfg, seen, corrections.measure_limit(cfg, seen))[0].tolist()


RATIOS = [0.3, 0.6, 1.0, 3.0, 7.0]


# --- single stages ---------------------------------------------------------------------------------------------------


def test_token_weight_golden():
    assert factor(CorrectionsConfig(weight="token"), view(RATIOS)) == pytest.approx([0.3, 0.6, 1, 2, 2])


def test_icepop_golden():
    cfg = CorrectionsConfig(mask="icepop", weight="token", weight_high=5.0)
    assert factor(cfg, view(RATIOS)) == pytest.approx([0, 0.6, 1, 3, 0])


def test_rollout_weight_is_the_capped_product_on_every_token():
    seen = view([2.0, 3.0, 0.5, 0.5], rollout=[0, 0, 1, 1])
    assert factor(CorrectionsConfig(weight="rollout"), seen) == pytest.approx([5, 5, 0.25, 0.25])
    assert factor(CorrectionsConfig(weight="rollout", weight_high=math.inf), seen) == pytest.approx([6, 6, 0.25, 0.25])


def test_opsm_drops_whole_negatives_that_became_improbable():
    seen = view([0.5, 1.0, 0.5, 1.0, 1.1, 1.0], rollout=[0, 0, 1, 1, 2, 2], adv=[-1.0, -1, 1, 1, -1, -1])
    assert factor(CorrectionsConfig(reject="opsm"), seen) == [0, 0, 1, 1, 1, 1]
    assert factor(CorrectionsConfig(reject="opsm", reject_high=0.4), seen) == [1] * 6  # the mean drift is .35


def test_mis_drops_by_the_product_and_geometric_by_the_mean():
    seen = view([2.0, 3.0, 1.0005, 1.0, 0.9, 1.2], rollout=[0, 0, 1, 1, 2, 2])
    assert factor(CorrectionsConfig(reject="mis"), seen) == [0, 0, 1, 1, 1, 1]
    assert factor(CorrectionsConfig(reject="geometric"), seen) == [0, 0, 1, 1, 0, 0]
    assert factor(CorrectionsConfig(reject="geometric", reject_low=0.9, reject_high=1.1), seen) == [0, 0, 1, 1, 1, 1]


def test_dppo_masks_the_probability_that_moved_the_harmful_way():
    """From mu = .5: to .75 and to .25, for a positive and for a negative."""
    seen = view([1.5, 0.5, 1.5, 0.5], adv=[1.0, 1, -1, -1], behaviour=math.log(0.5))
    assert factor(CorrectionsConfig(mask="dppo_tv"), seen) == [0, 1, 1, 0]
    assert factor(CorrectionsConfig(mask="dppo_tv", mask_high=0.26), seen) == [1] * 4
    divergence = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    for high, kept in ((divergence - 1e-3, [0, 1, 1, 0]), (divergence + 1e-3, [1] * 4)):
        assert factor(CorrectionsConfig(mask="dppo_kl", mask_high=high), seen) == kept


def test_divergence_adds_up_what_a_mean_of_log_ratios_cancels():
    seen = view([math.exp(0.3), math.exp(-0.3), 1.0, math.exp(0.1)], rollout=[0, 0, 1, 1])
    assert factor(CorrectionsConfig(reject="geometric"), seen) == [1, 1, 0, 0]
    assert factor(CorrectionsConfig(reject="k3"), seen) == [0, 0, 1, 1]  # .0453 and .0026, against .01
    for kind, first in (("k2", 0.045), ("k3", (math.cosh(0.3) - 1))):
        for high, kept in ((first - 1e-4, [0, 0, 1, 1]), (first + 1e-4, [1] * 4)):
            assert factor(CorrectionsConfig(reject=kind, reject_high=high), seen) == kept
    assert factor(CorrectionsConfig(reject="k2"), view([math.exp(2.2), 1.0, math.exp(2.3)], rollout=[0, 0, 1])) == [
        1,
        1,
        0,
    ]


def test_one_outlier_drops_its_rollout():
    seen = view([1.0, 101.0, 99.0, 1.0, 2e-4, 0.9e-4], rollout=[0, 0, 1, 1, 2, 3])
    assert factor(CorrectionsConfig(reject="outlier"), seen) == [0, 0, 1, 1, 1, 0]
    assert factor(CorrectionsConfig(reject="outlier", reject_low=0.5, reject_high=1.5), seen) == [0] * 6
    assert factor(CorrectionsConfig(reject="outlier"), view([1.0, 1e3], mask=[True, False])) == [1, 0]


def test_kpop_masks_the_divergence_in_either_direction():
    seen = view([1.5, 0.5, 1.5, 0.5], adv=[1.0, 1, -1, -1], behaviour=math.log(0.5))
    divergence = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert factor(CorrectionsConfig(mask="kpop", mask_high=divergence - 1e-3), seen) == [0] * 4
    assert factor(CorrectionsConfig(mask="kpop", mask_high=divergence + 1e-3), seen) == [1] * 4
    assert factor(CorrectionsConfig(mask="kpop"), view([1e-3, 0.1], behaviour=math.log(0.9))) == [0, 1]  # 5.6, 1.85


def test_lag_is_admitted_token_by_token():
    seen = view([1.0] * 4, rollout=[0, 0, 0, 1], lag=[9, 8, 0, 3])
    assert factor(CorrectionsConfig(mask="lag"), seen) == [0, 1, 1, 1]
    assert factor(CorrectionsConfig(mask="lag", mask_high=2.0), seen) == [0, 0, 1, 0]
    assert factor(CorrectionsConfig(mask="lag"), view([1.0])) == [1]


DRIFTS = [0.01, 0.05, 0.1, 0.3, 0.6]


def test_m2po_mask_golden():
    seen = view([math.exp(d) for d in DRIFTS])
    assert corrections.m2po_limit(seen, 0.04) == pytest.approx(0.09, abs=1e-6)
    assert factor(CorrectionsConfig(mask="m2po"), seen) == [1, 1, 1, 1, 0]
    assert factor(CorrectionsConfig(mask="m2po", mask_high=1e-9), seen) == [1, 0, 0, 0, 0]


def test_m2po_cap_golden():
    seen = view([math.exp(d) for d in DRIFTS])
    cap = corrections.m2po_cap(seen, 0.04)
    assert cap == pytest.approx(0.3, abs=1e-6)
    capped = [min(d, cap) ** 2 for d in DRIFTS]
    assert sum(capped) / 5 == pytest.approx(0.03852, abs=1e-5)
    assert factor(CorrectionsConfig(mask="m2po_released"), seen) == [1, 1, 1, 1, 0]  # e^.6 is above 1.5


def test_m2po_cap_counts_harmful_tokens_only_and_is_off_within_the_budget():
    seen = view([math.exp(d) for d in DRIFTS], adv=[-1.0] * 5)
    assert corrections.m2po_cap(seen, 0.04) == math.inf
    assert factor(CorrectionsConfig(mask="m2po_released"), seen) == [1] * 5
    assert corrections.m2po_cap(view([math.exp(0.5)]), 0.04) == pytest.approx(
        0.2
    )  # no breakpoint fits: the budget's root
    assert factor(CorrectionsConfig(mask="m2po_released"), view([math.exp(0.4)])) == [1]  # never narrower than 1.5


def test_step_factor_by_hand():
    assert corrections.step_factor(0.25, 1.0) == 0.5
    assert corrections.step_factor(0.5, 0.25) == 1.0
    assert corrections.step_factor(0.01, 0.0) == 1.0


# --- together --------------------------------------------------------------------------------------------------------


def slow(cfg, seen, limit):
    """The stages one token at a time, in python floats."""
    out = []
    rows = list(
        zip(
            seen.new.tolist(),
            seen.behaviour.tolist(),
            seen.adv.tolist(),
            seen.mask.tolist(),
            seen.rollout.tolist(),
            seen.lag.tolist(),
            strict=True,
        )
    )
    for new, behaviour, adv, alive, rollout, lag in rows:
        mine = [n - b for n, b, _, m, r, _ in rows if r == rollout and m]
        if not alive:
            out.append(0.0)
            continue
        total, mean, log_ratio = sum(mine), sum(mine) / len(mine), new - behaviour
        harmful = adv * log_ratio > 0
        pi, mu = math.exp(new), math.exp(behaviour)
        binary = mu * math.log(mu / pi) + (1 - mu) * math.log((1 - mu) / (1 - pi))
        rejected = {
            "none": False,
            "opsm": adv < 0 and -mean > 1e-4,
            "mis": math.exp(total) > 5.0,
            "geometric": not 0.999 <= math.exp(mean) <= 1.001,
            "k2": sum(0.5 * d * d for d in mine) / len(mine) > 2.5,
            "k3": sum(math.exp(d) - d - 1 for d in mine) / len(mine) > 0.01,
            "outlier": not all(1e-4 <= math.exp(d) <= 100.0 for d in mine),
        }[cfg.reject]
        masked = {
            "none": False,
            "icepop": not 0.5 <= math.exp(log_ratio) <= 5.0,
            "dppo_tv": harmful and abs(pi - mu) > 0.2,
            "dppo_kl": harmful and binary > 0.05,
            "kpop": binary > 2.0,
            "lag": lag > 8,
            "m2po": log_ratio**2 > limit,
            "m2po_released": harmful
            and not min(0.7, math.exp(-limit))
            <= math.exp(log_ratio)
            <= max(1.5, math.exp(limit) if limit < 99 else math.inf),
        }[cfg.mask]
        weight = {"none": 1.0, "token": min(math.exp(log_ratio), 2.0), "rollout": min(math.exp(total), 5.0)}[cfg.weight]
        out.append(0.0 if rejected or masked else weight)
    return out


@pytest.mark.parametrize("weight", ["none", *corrections.WEIGHTS])
@pytest.mark.parametrize("mask", ["none", *corrections.MASKS])
@pytest.mark.parametrize("reject", ["none", *corrections.REJECTIONS])
def test_every_combination_is_that_of_a_slow_reference(reject, mask, weight):
    given = make.drawn((3, 1, 4, 2, 3), seed=3, spread=0.5)
    given.old[0] -= 6.0
    seen = token_view(
        given.old.clamp(max=-0.1),
        given.behaviour.clamp(max=-0.1),
        given.adv,
        given.mask,
        given.rollout,
        torch.arange(13),
    )
    cfg = CorrectionsConfig(reject=reject, mask=mask, weight=weight)
    limit = corrections.measure_limit(cfg, seen)
    torch.testing.assert_close(torch.tensor(factor(cfg, seen)), torch.tensor(slow(cfg, seen, limit)))


def test_the_order_is_reject_mask_weight_and_what_left_stays_out():
    seen = view([0.4, 2.0, 1.0, 3.0], rollout=[0, 0, 1, 1], adv=[1.0, 1, -1, -1])
    cfg = CorrectionsConfig(reject="mis", reject_high=2.0, mask="icepop", weight="token")
    out, stats = corrections.correct(cfg, seen, corrections.measure_limit(cfg, seen))
    assert out.tolist() == pytest.approx([0, 2, 0, 0])
    assert list(dict.fromkeys(n.split("/")[-1].split("_")[0] for n in stats)) == [
        "all",
        "rollout",
        "reject",
        "mask",
        "weight",
    ]
    found = summarise(stats)
    assert (found["reject_kept_positive"], found["reject_kept_negative"]) == (1.0, 0.0)
    assert (found["mask_kept_positive"], found["mask_kept_negative"]) == (0.5, 0.0)


def test_what_is_masked_reaches_no_stage():
    cfg = CorrectionsConfig(reject="mis", mask="m2po", weight="rollout")
    clean = view([1.2, 0.8, 1.1], mask=[True, False, True])
    spoilt = token_view(
        torch.where(clean.mask, clean.new, torch.nan),
        torch.where(clean.mask, clean.behaviour, torch.inf),
        torch.where(clean.mask, clean.adv, torch.nan),
        clean.mask,
        clean.rollout,
    )
    assert factor(cfg, spoilt) == factor(cfg, clean)
    one, other = (summarise(corrections.correct(cfg, v, 0.5)[1]) for v in (clean, spoilt))
    assert one == other


def test_split_batches_add_up():
    given = make.drawn((3, 2, 4, 2), seed=5)
    columns = (
        given.old,
        given.behaviour,
        given.adv,
        given.mask,
        given.rollout,
        torch.tensor([0, 0, 1, 9, 9, 3, 3, 3, 40, 5, 5]),
    )
    cfg = CorrectionsConfig(reject="geometric", reject_low=0.7, reject_high=1.5, mask="icepop", weight="token")
    whole, stats = corrections.correct(cfg, token_view(*columns), 5.0)
    parts = [corrections.correct(cfg, token_view(*(c[at] for c in columns)), 5.0) for at in (slice(0, 5), slice(5, 11))]
    torch.testing.assert_close(whole, torch.cat([p[0] for p in parts]))
    assert summarise(merge_stats(parts[0][1], parts[1][1])) == pytest.approx(summarise(stats))


# --- figures ---------------------------------------------------------------------------------------------------------


def test_figures_by_sign_by_hand():
    seen = view([1.0, 1.0, 0.1, 0.1, 4.0], adv=[1.0, 1, 1, 1, -1], lag=[0, 1, 3, 8, 20])
    found = summarise(corrections.correct(CorrectionsConfig(), seen, 0.0)[1])
    assert found["all_ess_positive"] == pytest.approx(2.396040 / 4, abs=1e-5)
    assert (found["all_largest_positive"], found["all_largest_negative"]) == pytest.approx((1.0, 4.0))
    assert found["all_k3_negative"] == pytest.approx(4 - math.log(4) - 1)
    bins = {name: share for name, share in found.items() if "_lag_" in name and "positive" in name}
    assert bins == {f"all_lag_{low}_positive": 0.25 for low in (0, 1, 2, 8)}
    assert found["all_lag_16_negative"] == 1.0
    assert "all_kept_positive" not in found


def test_of_a_sign_that_is_not_there_no_figure_is_given():
    found = summarise(corrections.correct(CorrectionsConfig(mask="icepop"), view([1.0]), 5.0)[1])
    assert not [name for name in found if name.endswith("negative")]
    assert found["mask_kept_positive"] == 1.0


def test_effective_share_of_rollouts_by_hand():
    seen = view([2.0, 0.5, 0.1, 1.0], rollout=[0, 0, 1, 2])
    found = summarise(corrections.correct(CorrectionsConfig(), seen, 0.0)[1])
    assert found["rollout_ess"] == pytest.approx(2.1**2 / (3 * 2.01))


# --- what is refused -------------------------------------------------------------------------------------------------


TOKEN = {"corrections": {"weight": "token"}}
PRESENT = {"corrections": {"weight": "rollout", "policy": "present"}}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("grpo", TOKEN),
        ("ppo", TOKEN),
        ("topr", TOKEN),
        ("cispo", TOKEN),
        ("gspo", TOKEN),
        ("grpo", PRESENT),
        ("grpo", {"weight_cap": 0.0, **PRESENT}),
        ("cispo", {"against": "old", **PRESENT}),
        ("gspo", {"against": "old", **PRESENT}),
        ("ppo", {"weight_cap": 0.0, **PRESENT}),
    ],
)
def test_the_same_ratio_counts_once(name, options):
    with pytest.raises(ConfigError, match="counts the same ratio twice") as refused:
        base.load_algorithm(config.AlgorithmChoice(name=name, options=options))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("grpo", {"weight_cap": 0.0, **TOKEN}),
        ("ppo", {"weight_cap": 0.0, **TOKEN}),
        ("cispo", {"against": "old", **TOKEN}),
        ("gspo", {"against": "old", **TOKEN}),
        ("reinforce", PRESENT),
        ("rloo", TOKEN),
        ("rover", TOKEN),
        ("topr", {"corrections": {"reject": "opsm", "mask": "icepop", "ess_base": 1.0}}),
    ],
)
def test_what_counts_once_is_taken(name, options):
    assert base.load_algorithm(config.AlgorithmChoice(name=name, options=options))[1].corrections.active


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"reject": "mis", "reject_low": 0.5}, "reject_low means something only to geometric, outlier"),
        ({"mask": "dppo_tv", "mask_low": 0.5}, "mask_low means something only to icepop"),
        ({"weight_high": 2.0}, "name a stage or leave it out"),
        ({"mask": "icepop", "mask_high": -1.0}, "mask_high = -1.0: must be a number at least 0"),
        ({"reject": "opsn"}, "opsn"),
    ],
)
def test_half_a_setting_is_refused(options, said):
    with pytest.raises(ConfigError, match=said):
        base.load_algorithm(config.AlgorithmChoice(name="reinforce", options={"corrections": options}))


def test_nobody_sampled_a_demonstration():
    with pytest.raises(ConfigError, match="sft takes no corrections"):
        base.load_algorithm(config.AlgorithmChoice(name="sft", options={"corrections": {"reject": "mis"}}))


# --- presets that are a surrogate with stages ------------------------------------------------------------------------


def corrected_gradient(module, cfg, given):
    new = given.logp if cfg.corrections.policy == "present" else given.old
    seen = token_view(new, given.behaviour, given.adv, given.mask, given.rollout)
    share = (
        corrections.correct(cfg.corrections, seen, corrections.measure_limit(cfg.corrections, seen))[0] * given.share
    )
    return make.gradient(module.token_loss(cfg, make.replace(given, share=share))[0], given)


def test_aipo_is_reinforce_with_a_capped_present_ratio():
    given, cfg = make.drawn(), base.load_algorithm(config.AlgorithmChoice(name="reinforce", preset="aipo"))[1]
    weight = (given.logp.detach() - given.behaviour).exp().clamp(max=5.0)
    expected = torch.where(given.mask, -given.share * weight * given.adv, 0.0)
    torch.testing.assert_close(corrected_gradient(reinforce, cfg, given), expected)


def test_m2po_as_released_is_a_ppo_clip_at_the_batchs_bounds():
    given = make.drawn(spread=0.6)
    cfg = base.load_algorithm(config.AlgorithmChoice(name="reinforce", preset="m2po_released"))[1]
    seen = token_view(given.logp, given.behaviour, given.adv, given.mask, given.rollout)
    cap = corrections.m2po_cap(seen, 0.04)
    assert cap < math.inf
    rho = torch.exp(given.logp - given.behaviour)
    clipped = rho.clamp(min(0.7, math.exp(-cap)), max(1.5, math.exp(cap)))
    slow_loss = -(given.share * torch.minimum(rho * given.adv, clipped * given.adv))[given.mask].sum()
    expected = make.gradient(slow_loss, given)
    assert bool((expected[given.mask] == 0).any())
    torch.testing.assert_close(corrected_gradient(reinforce, cfg, given), expected)


def test_icepop_preset_is_the_surrogate_times_the_ratio_within_bounds():
    given, cfg = make.drawn(), base.load_algorithm(config.AlgorithmChoice(name="grpo", preset="icepop"))[1]
    prox = (given.old - given.behaviour).exp()
    inside = torch.where((prox >= 0.5) & (prox <= 5.0), prox, 0.0)
    bare = make.replace(given, share=given.share * inside)
    torch.testing.assert_close(
        corrected_gradient(grpo, cfg, given), make.gradient(grpo.token_loss(cfg, bare)[0], given)
    )


def test_prime_rls_square_is_felt_by_masked_tokens_too():
    given = make.replace(make.drawn(), value_share=torch.rand(10, generator=torch.Generator().manual_seed(2)))
    cfg = base.load_algorithm(config.AlgorithmChoice(name="reinforce", preset="dppo_tv_prime"))[1]
    rho, moved = (given.logp - given.behaviour).exp(), given.logp.exp() - given.behaviour.exp()
    kept = given.mask & ~((given.adv > 0) & (moved > 0.2)) & ~((given.adv < 0) & (moved < -0.2))
    assert bool((given.mask & ~kept).any())
    slow_loss = (
        -(given.share * given.adv * rho)[kept].sum() + 1e-3 * (given.value_share * rho.log() ** 2)[given.mask].sum()
    )
    torch.testing.assert_close(corrected_gradient(reinforce, cfg, given), make.gradient(slow_loss, given))


def test_dro_is_a_squared_log_ratio_beside_the_likelihood():
    given, cfg = make.drawn(), base.load_algorithm(config.AlgorithmChoice(name="reinforce", preset="dro"))[1]
    each = given.share * (-given.adv * given.logp + 0.05 * (given.logp - given.behaviour) ** 2)
    torch.testing.assert_close(corrected_gradient(reinforce, cfg, given), make.gradient(each[given.mask].sum(), given))
