"""DPO: pairs of a group, the loss of a pair, a slow reference."""

import math

import pytest
import torch

from rlsp_async import config
from rlsp_async.algos import base, dpo
from rlsp_async.errors import ConfigError
from tests.algos import given as make


def test_a_pair_by_hand():
    """Better: from -1.5 to -1; worse: from -1 to -2. Margin 1.5, loss log(1 + e^-.15), gradient beta sigmoid(-.15)."""
    given = make.tokens([-1.0, -2.0], [0, 1], reference=[-1.5, -1.0], adv=[1.0, -1.0], share=[0.5, 0.5], pair=[0, 0])
    loss, stats = dpo.token_loss(dpo.Config(), given)
    assert loss.item() == pytest.approx(0.620957, abs=1e-6)
    pull = 0.1 / (1 + math.exp(0.15))
    assert make.gradient(loss, given).tolist() == pytest.approx([-pull, pull])
    assert stats["margin"].tolist() == [1.5, 1.0]
    assert stats["preferred"].tolist() == [1.0, 1.0]


def test_at_the_reference_the_loss_is_log_two():
    given = make.tokens([-1.0, -2.0], [0, 1], behaviour=[-1.0, -2.0], adv=[1.0, -1.0], share=[0.5, 0.5], pair=[4, 4])
    assert dpo.token_loss(dpo.Config(against="behaviour"), given)[0].item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("cfg", [dpo.Config(beta=0.5), dpo.Config(beta=0.3, against="behaviour")])
def test_gradient_is_that_of_a_slow_reference(cfg):
    given = make.drawn((3, 1, 4, 2))
    sign = [1.0, -1.0, -1.0, 1.0]
    given = make.replace(
        given,
        adv=torch.tensor(sign)[given.rollout],
        share=torch.full((10,), 0.25),
        pair=torch.tensor([9, 2, 9, 2])[given.rollout],
    )
    reference, members, loss = given.reference if cfg.against == "stage" else given.behaviour, make.members(given), 0.0
    for best, worst in ((0, 2), (3, 1)):
        moved = [sum(given.logp[t] - reference[t] for t in members[i]) for i in (best, worst)]
        loss = loss - 0.5 * torch.log(torch.sigmoid(cfg.beta * (moved[0] - moved[1])))
    made, _ = dpo.token_loss(cfg, given)
    torch.testing.assert_close(made, loss)
    torch.testing.assert_close(make.gradient(made, given), make.gradient(loss, given))


def test_pairs_are_made_from_outside_in_while_rewards_differ():
    batch = make.batch([0.0, 1, 0.5, 1, 1, 1, 0], [0, 0, 0, 0, 1, 1, 2], [1, 2, 1, 1, 1, 1, 1])
    one, many = (dpo.advantages(dpo.Config(pairs_per_group=n), batch) for n in (1, 9))
    assert one.pair_B.tolist() == [0, 0, -1, -1, -1, -1, -1]
    assert one.keep_B.tolist() == [True, True, False, False, False, False, False]
    assert one.adv_N.tolist() == [-1, 1, 1, 0, 0, 0, 0, 0]
    assert many.pair_B.tolist() == [0, 0, 1, 1, -1, -1, -1]
    assert (one.stats["pairs"], many.stats["pairs"]) == (1.0, 2.0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"corrections": {"reject": "mis"}}, "dpo takes no corrections"),
        ({"aggregation": "token_mean"}, "aggregation"),
        ({"pairs_per_group": 0}, "at least 1"),
    ],
)
def test_what_is_no_dpo_is_refused(options, said):
    with pytest.raises(ConfigError, match=said):
        base.load_algorithm(config.AlgorithmChoice(name="dpo", options=options))


def test_only_against_the_stages_policy_is_a_reference_kept():
    assert dpo.needs(dpo.Config()) == {"reference"}
    assert dpo.needs(dpo.Config(against="behaviour")) == frozenset()
