"""The laws that every algorithm keeps, run on every module of rlsp_async/algos."""

from dataclasses import fields, replace

import pytest
import torch

from rlsp_async import config
from rlsp_async.algos import base, grpo, ppo

MODULES = {name: base.ALGORITHMS.find(name) for name in base.names()}
PRESETS = [(name, preset) for name, module in MODULES.items() for preset in ("", *module.PRESETS)]
FACTOR = {name: getattr(module, "ON_POLICY", 1.0) for name, module in MODULES.items()}
"""The on-policy gradient relative to REINFORCE's; None for a loss that is no policy gradient."""


def tokens(num=6, seed=0, on_policy=False, name="ppo"):
    g = torch.Generator().manual_seed(seed)
    draw = lambda: torch.randn(num, generator=g)  # noqa: E731
    logp = (-draw().abs() - 0.1).requires_grad_()
    old = logp.detach().clone() if on_policy else logp.detach() + 0.1 * draw()
    behaviour = old.clone() if on_policy else old + 0.1 * draw()
    mean = -2.0 + 0.1 * draw()
    heads = MODULES[name].Config().num_values()
    value = draw if heads == 1 else lambda: torch.randn(num, heads, generator=g)
    return base.Tokens(
        logp=logp,
        behaviour=behaviour,
        adv=draw(),
        mask=torch.ones(num, dtype=torch.bool),
        share=torch.full((num,), 1 / num),
        old=old,
        returns=value(),
        values=value().requires_grad_(),
        old_values=value(),
        reference=old + 0.1 * draw(),
        rollout=torch.arange(num) // 2,
        mean=mean,
        old_mean=mean if on_policy else mean + 0.1 * draw(),
        lag=torch.full((num,), 0 if on_policy else 2),
        value_share=torch.full((num,), 1 / num),
        pair=torch.tensor([7, 7, 3, 3, 3, 3])[:num],
        entropy=draw().abs().requires_grad_(),
    )


def gradient(module, given, cfg=None):
    loss, _ = module.token_loss(cfg or module.Config(), given)
    return loss, *torch.autograd.grad(loss, [given.logp, given.values], allow_unused=True, materialize_grads=True)


def options(name, preset):
    asked = getattr(MODULES[name], "ASKED", {}).get(preset, ())  # options to which the paper gives no value
    return base.load_algorithm(config.AlgorithmChoice(name=name, preset=preset, options=dict.fromkeys(asked, 0.01)))[1]


def part(given, at):
    return base.Tokens(**{f.name: getattr(given, f.name)[at] for f in fields(given)})


@pytest.mark.parametrize(("name", "preset"), PRESETS)
def test_split_batches_add_up(name, preset):
    given, cfg = tokens(name=name), options(name, preset)
    whole = MODULES[name].token_loss(cfg, given)
    halves = [MODULES[name].token_loss(cfg, part(given, at)) for at in (slice(0, 2), slice(2, 6))]
    torch.testing.assert_close(whole[0], halves[0][0] + halves[1][0])
    for key, pair in whole[1].items():
        torch.testing.assert_close(pair, halves[0][1][key] + halves[1][1][key])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(("name", "preset"), PRESETS)
def test_what_is_masked_reaches_neither_loss_nor_gradient(name, preset, bad):
    given, cfg = tokens(name=name), options(name, preset)
    mask = torch.tensor([True, True, False, True, True, True])
    clean = replace(given, mask=mask)

    def spoil(x):
        left = mask.reshape(-1, *[1] * (x.ndim - 1))
        return torch.where(left, x.detach(), torch.full_like(x, bad)).requires_grad_(x.requires_grad)

    columns = (
        "logp",
        "behaviour",
        "adv",
        "old",
        "returns",
        "values",
        "old_values",
        "reference",
        "mean",
        "old_mean",
        "entropy",
    )
    spoilt = replace(clean, **{c: spoil(getattr(clean, c)) for c in columns})
    for expected, got in zip(gradient(MODULES[name], clean, cfg), gradient(MODULES[name], spoilt, cfg), strict=True):
        torch.testing.assert_close(got, expected)
    assert gradient(MODULES[name], spoilt, cfg)[1][2] == 0.0


@pytest.mark.parametrize("name", MODULES)
def test_moving_the_behaviour_log_prob_moves_the_gradient_of_what_says_it_corrects_and_of_nothing_else(name):
    given = tokens(name=name)
    moved = replace(given, behaviour=given.behaviour + 0.3)
    before, after = gradient(MODULES[name], given)[1], gradient(MODULES[name], moved)[1]
    assert torch.allclose(before, after) == (MODULES[name].Config().carries() != "behaviour")


@pytest.mark.parametrize("name", [name for name, factor in FACTOR.items() if factor is not None])
def test_on_policy_the_gradient_is_reinforces(name):
    given = tokens(on_policy=True, name=name)
    torch.testing.assert_close(gradient(MODULES[name], given)[1], -FACTOR[name] * given.share * given.adv)


def three_rollouts(name):
    """Two groups with tokens of 2, 1 and 3; every column is there."""
    heads = MODULES[name].Config().num_values()
    terms = base.Terms(torch.tensor([1.0, 0, 0]), torch.tensor([0.5, 0, 1]), 0.8)
    return base.Rollouts(
        reward_B=torch.tensor([1.0, 0, 0]),
        group_B=torch.tensor([0, 0, 1]),
        length_B=torch.tensor([2, 1, 3]),
        behaviour_N=torch.zeros(6),
        mask_N=torch.ones(6, dtype=torch.bool),
        old_N=torch.zeros(6),
        reference_N=torch.zeros(6),
        values_N=torch.zeros(6 if heads == 1 else (6, heads)),
        terms=terms,
        prompt_B=torch.tensor([0, 0, 1]),
        text_B=torch.tensor([0, 1, 2]),
        old_mean_N=torch.zeros(6),
        lag_N=torch.zeros(6, dtype=torch.int64),
        energy_N=torch.ones(6),
    )


@pytest.mark.parametrize("name", MODULES)
def test_advantages_have_the_batchs_shape_and_are_finite(name):
    batch = three_rollouts(name)
    out = MODULES[name].advantages(MODULES[name].Config(), batch)
    assert (out.adv_N.shape, out.keep_B.shape, out.keep_B.dtype) == ((6,), (3,), torch.bool)
    assert bool(torch.isfinite(out.adv_N).all())
    out.check(batch)


@pytest.mark.parametrize("name", MODULES)
def test_a_column_of_the_wrong_length_is_refused_with_its_name(name):
    """Torch would broadcast a column of one entry in silence."""
    module, batch, given = MODULES[name], three_rollouts(name), tokens(name=name)
    for column in [f.name for f in fields(batch) if f.name != "terms"]:
        with pytest.raises(ValueError, match=r"_B|_N"):
            module.advantages(module.Config(), replace(batch, **{column: getattr(batch, column)[:1]}))
    for column in [f.name for f in fields(given) if f.name != "logp"]:
        with pytest.raises(ValueError, match=rf"^{column}_RK? has shape \[1"):
            module.token_loss(module.Config(), replace(given, **{column: getattr(given, column)[:1]}))
    with pytest.raises(ValueError, match=r"^explore_B has shape \[1\], and reward_B has \[3\]"):
        replace(batch, terms=replace(batch.terms, explore_B=batch.terms.explore_B[:1]))
    short = module.advantages(module.Config(), batch)
    with pytest.raises(ValueError, match=r"^adv_N has shape \[1\], and mask_N has \[6\]"):
        replace(short, adv_N=short.adv_N[:1]).check(batch)


# --- each algorithm's own hand-computed numbers ----------------------------------------------------------------------


def one(**columns):
    filled = {
        "logp": [-0.7],
        "old": [-1.0],
        "behaviour": [-1.2],
        "adv": [1.0],
        "values": [0.0],
        "old_values": [0.0],
        "returns": [0.0],
        "share": [1.0],
        **columns,
    }
    num = len(filled["logp"])
    made = {k: torch.tensor(v * num if len(v) < num else v) for k, v in filled.items()}
    made.setdefault("rollout", torch.zeros(len(made["logp"]), dtype=torch.int64))
    return base.Tokens(
        **{**made, "logp": made["logp"].requires_grad_(), "values": made["values"].requires_grad_()},
        mask=torch.ones(len(made["logp"]), dtype=torch.bool),
    )


def test_grpo_by_hand():
    loss, grad, _ = gradient(grpo, one(), grpo.Config(clip_high=0.2))
    assert loss.item() == pytest.approx(-1.465683, abs=1e-6)
    assert grad.item() == 0.0
    inside, grad, _ = gradient(grpo, one(logp=[-0.9]))
    assert inside.item() == pytest.approx(-1.221403 * 1.105171, abs=1e-5)
    assert grad.item() == pytest.approx(-1.221403 * 1.105171, abs=1e-5)


def test_grpo_caps_the_weight_and_counts_clips_by_sign():
    loss, stats = grpo.token_loss(
        grpo.Config(),
        one(logp=[-1.0, -0.5], old=[-1.0, -1.0], behaviour=[-9.0, -1.0], adv=[1.0, 1.0], share=[0.5, 0.5]),
    )
    assert loss.item() == pytest.approx(-(2.0 + 1.28) / 2)
    assert stats["clip_positive"].tolist() == [1.0, 2.0]
    assert stats["clip_negative"].tolist() == [0.0, 0.0]


def test_grpo_leaves_out_groups_without_signal():
    batch = base.Rollouts(
        torch.tensor([1.0, 1, 1, 0]),
        torch.tensor([0, 0, 1, 1]),
        torch.tensor([1, 1, 2, 1]),
        torch.zeros(5),
        torch.ones(5, dtype=torch.bool),
    )
    out = grpo.advantages(grpo.Config(divide_by_std=False), batch)
    assert out.keep_B.tolist() == [False, False, True, True]
    assert out.adv_N.tolist() == [0, 0, 0.5, 0.5, -0.5]


def test_ppo_token_by_hand():
    loss, grad, _ = gradient(ppo, one())
    assert loss.item() == pytest.approx(-1.465683, abs=1e-6)
    assert grad.item() == 0.0
    assert gradient(ppo, one(), ppo.Config(weight_cap=0.0))[0].item() == pytest.approx(-1.2)


def test_ppo_value_loss_is_clipped_with_factor_half():
    loss, _, grad = gradient(ppo, one(adv=[0.0], values=[0.5], old_values=[0.0], returns=[1.0]))
    assert loss.item() == pytest.approx(0.5 * 0.8**2)
    assert grad.item() == 0.0
    loss, _, grad = gradient(ppo, one(adv=[0.0], values=[0.5], returns=[1.0]), ppo.Config(value_clip=0.0))
    assert (loss.item(), grad.item()) == (pytest.approx(0.125), pytest.approx(-0.5))


def rlsp_batch():
    return base.Rollouts(
        torch.tensor([1.0]),
        torch.tensor([0]),
        torch.tensor([3]),
        torch.zeros(3),
        torch.ones(3, dtype=torch.bool),
        old_N=torch.tensor([-1.0, -1.0, -1.0]),
        reference_N=torch.tensor([-1.0, -1.0, -1.0]),
        values_N=torch.tensor([0.2, 0.4, 0.6]),
    )


def test_ppo_advantages_golden():
    out = ppo.advantages(ppo.Config(whiten=False), rlsp_batch())
    torch.testing.assert_close(out.adv_N, torch.tensor([0.751, 0.58, 0.4]))
    torch.testing.assert_close(out.returns_N, torch.tensor([0.951, 0.98, 1.0]))


def test_ppo_pays_kl_on_every_token_and_the_reward_on_the_last():
    batch = replace(rlsp_batch(), reference_N=torch.tensor([-1.5, -1.0, -1.0]), values_N=torch.zeros(3))
    out = ppo.advantages(ppo.Config(whiten=False, lam=1.0, kl_coef=0.1), batch)
    torch.testing.assert_close(out.adv_N, torch.tensor([0.95, 1.0, 1.0]))
    assert out.stats["kl_penalty"] == pytest.approx(0.05)


def test_ppo_monte_carlo_targets_ignore_the_values():
    out = ppo.advantages(ppo.Config(returns="monte_carlo"), rlsp_batch())
    torch.testing.assert_close(out.returns_N, torch.ones(3))


def test_ppo_asks_for_no_reference_without_kl():
    assert ppo.needs(ppo.Config(kl_coef=0.0)) == {"old", "values"}
