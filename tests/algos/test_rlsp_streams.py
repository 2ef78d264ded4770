"""Two streams of advantages: golden numbers, the identity with PPO, and what the bound promises."""

import math

import pytest
import torch

from rlsp_async import config
from rlsp_async.algos import base, maths, ppo, rlsp_streams
from rlsp_async.errors import ConfigError
from tests.algos import given as make

FORMS = ({}, {"lam": 0.7, "gamma": 0.9}, {"returns": "monte_carlo"}, {"returns": "vtrace", "weight_cap": 1.5})


def rollouts(outcome, explore, alpha, group, length, values, **columns):
    terms = base.Terms(torch.tensor(outcome), torch.tensor(explore), alpha)
    reward = (alpha * terms.outcome_B + (1 - alpha) * terms.explore_B).tolist()
    made = make.batch(reward, group, length, values_N=values, **columns)
    return make.replace(made, terms=terms)


def small(alpha):
    """A right answer of two tokens with R_explore -1, a wrong one of three with 0; values (of c, of e)."""
    values = [[0.5, 0.0], [0.6, -0.5], [0.5, 0.0], [0.2, 0.0], [0.1, 0.5]]
    return rollouts([1.0, 0.0], [-1.0, 0.0], alpha, [0, 0], [2, 3], values)


def drawn(seed, alpha=0.3, spread=3.0):
    """Three groups of three rollouts: the first mixed, the second all wrong, the third mixed."""
    g = torch.Generator().manual_seed(seed)
    length = torch.randint(1, 6, (9,), generator=g).tolist()
    draw = lambda *shape: torch.randn(*shape, generator=g)  # noqa: E731
    num = sum(length)
    old = -draw(num).abs()
    return rollouts(
        [1.0, 0, 1, 0, 0, 0, 0, 0, 1],
        (spread * draw(9)).tolist(),
        alpha,
        [0, 0, 0, 1, 1, 1, 2, 2, 2],
        length,
        draw(num, 2),
        old_N=old,
        reference_N=old + 0.2 * draw(num),
        behaviour_N=old + 0.2 * draw(num),
    )


def plain(**options):
    return rlsp_streams.Config(**{"whiten": False, "kl_coef": 0.0, "lam": 1.0, **options})


def test_sum_golden():
    """A_c (.5, .4, -.5, -.2, -.1), A_e (-1, -.5, 0, 0, -.5)."""
    out = rlsp_streams.advantages(plain(), small(0.8))
    assert out.adv_N.tolist() == pytest.approx([0.2, 0.22, -0.4, -0.16, -0.18])
    torch.testing.assert_close(out.returns_N, torch.tensor([[1.0, -1]] * 2 + [[0.0, 0]] * 3))
    assert out.stats["opposed_fraction"] == 0.0
    assert out.stats["adv_std_explore"] == pytest.approx(0.2 * torch.tensor([1, 0.5, 0, 0, 0.5]).std(correction=0))
    assert out.stats["explained_variance_outcome"] == pytest.approx(
        maths.explained_variance(torch.tensor([1.0, 1, 0, 0, 0]), torch.tensor([0.5, 0.6, 0.5, 0.2, 0.1]))
    )


def test_where_exploration_outvotes_correctness_it_is_counted_and_with_a_bound_it_cannot():
    free = rlsp_streams.advantages(plain(), small(0.2))
    assert free.adv_N.tolist() == pytest.approx([-0.7, -0.32, -0.1, -0.04, -0.42])
    assert (free.stats["opposed_fraction"], free.stats["bounded_fraction"]) == (pytest.approx(0.4), 0.0)
    bound = rlsp_streams.advantages(plain(bound=0.5), small(0.2))
    assert bound.adv_N.tolist() == pytest.approx([0.05, 0.04, -0.1, -0.04, -0.42])
    assert (bound.stats["opposed_fraction"], bound.stats["bounded_fraction"]) == (0.0, pytest.approx(0.4))


def test_gdpo_golden():
    """Rewards of a pair become +-1/sqrt 2, whatever their scale was."""
    batch = make.replace(small(0.8), values_N=torch.zeros(5, 2))
    out = rlsp_streams.advantages(plain(combine="gdpo"), batch)
    right = (0.8 - 0.2) / math.sqrt(2)
    assert out.adv_N.tolist() == pytest.approx([right] * 2 + [-right] * 3, rel=1e-5)


def test_with_gdpo_an_all_wrong_group_is_paid_for_exploration_however_little_it_differs():
    terms = base.Terms(torch.zeros(2), torch.tensor([0.001, 0.0]), 0.9)
    batch = make.replace(small(0.9), values_N=torch.zeros(5, 2), terms=terms)
    adv_N = rlsp_streams.advantages(plain(combine="gdpo"), batch).adv_N
    assert adv_N.tolist() == pytest.approx([0.1 / math.sqrt(2)] * 2 + [-0.1 / math.sqrt(2)] * 3, rel=1e-2)
    assert rlsp_streams.advantages(plain(), batch).adv_N.abs().max() < 1.01e-4


@pytest.mark.parametrize("whiten", [True, False])
@pytest.mark.parametrize("form", FORMS)
def test_the_sum_of_equal_streams_is_ppo_with_the_weighted_values(form, whiten):
    batch = drawn(3)
    options = {"kl_coef": 0.1, "lam": 1.0, "whiten": whiten, **form}
    single = make.replace(batch, values_N=0.3 * batch.values_N[:, 0] + 0.7 * batch.values_N[:, 1])
    streams, one = rlsp_streams.advantages(plain(**options), batch), ppo.advantages(ppo.Config(**options), single)
    torch.testing.assert_close(streams.adv_N, one.adv_N)
    assert streams.stats["kl_penalty"] == pytest.approx(one.stats["kl_penalty"])


def test_each_stream_has_a_horizon_of_its_own():
    """Credit fades by gamma lam from the last token; values 0."""
    batch = make.replace(small(0.5), values_N=torch.zeros(5, 2))
    out = rlsp_streams.advantages(plain(lam=0.5, lam_explore=1.0, gamma_explore=0.1), batch)
    assert out.adv_N.tolist() == pytest.approx([0.5 * 0.5 - 0.5 * 0.1, 0.5 - 0.5, 0, 0, 0])


@pytest.mark.parametrize("combine", ["sum", "gdpo"])
@pytest.mark.parametrize("seed", range(20))
def test_with_a_bound_every_right_token_stands_above_every_wrong_one_of_its_group(combine, seed):
    batch = drawn(seed, alpha=0.1, spread=30.0)
    free, bound = (
        rlsp_streams.advantages(rlsp_streams.Config(kl_coef=0.0, lam=1.0, combine=combine, bound=b), batch)
        for b in (0.0, 0.9)
    )
    number_N = torch.arange(9).repeat_interleave(batch.length_B)
    right_N, group_N = batch.terms.outcome_B[number_N] > 0.5, batch.group_B[number_N]
    for group in (0, 2):
        right, wrong = (bound.adv_N[(group_N == group) & side].tolist() for side in (right_N, ~right_N))
        assert min(right) >= max(wrong) - 1e-6
    assert free.stats["opposed_fraction"] > 0.1


def test_the_bound_leaves_groups_without_a_pair_alone():
    batch = drawn(4)
    free, bound = (rlsp_streams.advantages(plain(bound=b), batch).adv_N for b in (0.0, 0.5))
    alone_N = (batch.group_B == 1).repeat_interleave(batch.length_B)
    torch.testing.assert_close(free[alone_N], bound[alone_N])
    assert not torch.allclose(free[~alone_N], bound[~alone_N])


@pytest.mark.parametrize("cfg", [plain(), plain(value_coef=0.3, value_clip=0.0), plain(weight_cap=1.1)])
def test_gradients_are_those_of_a_slow_reference(cfg):
    g = torch.Generator().manual_seed(5)
    given = make.drawn()
    num = len(given.logp)
    values, old_values, returns = (torch.randn(num, 2, generator=g) for _ in range(3))
    given = make.replace(given, values=values.requires_grad_(), old_values=old_values, returns=returns)
    slow = torch.zeros(())
    for t in range(num):
        if not given.mask[t]:
            continue
        rho, adv = torch.exp(given.logp[t] - given.old[t]), given.adv[t]
        weight = min(math.exp(given.old[t] - given.behaviour[t]), cfg.weight_cap)
        slow = slow - given.share[t] * weight * torch.minimum(rho * adv, rho.clamp(0.8, 1.2) * adv)
        for k in range(2):
            v, g_t, v_old = values[t, k], returns[t, k], old_values[t, k]
            error = (v - g_t) ** 2
            if cfg.value_clip:
                error = torch.maximum(error, (v_old + (v - v_old).clamp(-0.2, 0.2) - g_t) ** 2)
            slow = slow + given.share[t] * cfg.value_coef * 0.5 * error
    loss, stats = rlsp_streams.token_loss(cfg, given)
    torch.testing.assert_close(loss, slow)
    made, expected = (torch.autograd.grad(x, [given.logp, values]) for x in (loss, slow))
    torch.testing.assert_close(made, expected)
    assert {"policy_loss", "value_loss_outcome", "value_loss_explore"} <= set(stats)


def test_a_fresh_critic_begins_at_the_mean_of_each_term():
    batch = small(0.8)
    assert plain().first_values(batch.reward_B, batch.terms) == (0.5, -0.5)
    assert plain(combine="gdpo").first_values(batch.reward_B, batch.terms) == (0.0, 0.0)
    assert ppo.Config().first_values(batch.reward_B, batch.terms) == (pytest.approx(0.3),)


def test_demonstrations_are_refused():
    with pytest.raises(ConfigError, match="demonstrations have none"):
        rlsp_streams.advantages(plain(), make.replace(small(0.8), terms=None))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"bound": 1.0}, "below 1"),
        ({"reward_form": "released"}, "two terms"),
        ({"normalize_reward": True}, "two terms"),
    ],
)
def test_options_that_mean_nothing_here_are_refused(options, said):
    with pytest.raises(ConfigError, match=said):
        base.load_algorithm(config.AlgorithmChoice(name="rlsp_streams", options=options))
