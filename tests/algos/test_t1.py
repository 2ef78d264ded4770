"""T1: RLOO of reward less KL, each against the mean of the others, and an entropy bonus with its gradient."""

import pytest
import torch

from rlsp_async import config
from rlsp_async.algos import base, rloo, t1
from rlsp_async.errors import ConfigError
from tests.algos import given as make

OLD, REFERENCE = [-1.0, -1, -1, -1, -2], [-1.5, -1, -1, -1, -4]


def test_advantages_golden():
    batch = make.batch([1.0, 0, 0, 1], [0] * 4, [1, 1, 2, 1], old_N=OLD, reference_N=REFERENCE)
    out = t1.advantages(t1.Config(kl_coef=0.1), batch)  # KL .5, 0, 0, 2: z .95, 0, 0, .8
    expected = [0.95 - 0.8 / 3, -1.75 / 3, -1.75 / 3, -1.75 / 3, 0.8 - 0.95 / 3]
    assert out.adv_N.tolist() == pytest.approx(expected)
    assert out.stats["kl_penalty"] == pytest.approx(0.625)


def test_the_kl_is_normalised_in_its_group():
    """Flat rewards and an equal distance to the reference give no advantage."""
    batch = make.batch([1.0, 1], [0, 0], [2, 1], old_N=[-1.0, -1, -1], reference_N=[-2.0, -2, -3])
    out = t1.advantages(t1.Config(kl_coef=0.5), batch)
    assert out.adv_N.tolist() == [0.0] * 3
    assert out.keep_B.tolist() == [True, True]
    flat = t1.advantages(t1.Config(kl_coef=0.5, drop_flat_groups=True), batch)
    assert flat.keep_B.tolist() == [False, False]


def test_without_its_coefficients_it_is_rloo():
    cfg = t1.Config(kl_coef=0.0)
    assert t1.needs(cfg) == frozenset()
    batch = make.batch([1.0, 0, 0.5], [0, 0, 0], [1, 2, 1])
    ours, plain = t1.advantages(cfg, batch), rloo.advantages(rloo.Config(), batch)
    assert ours.adv_N.tolist() == plain.adv_N.tolist()
    given = make.drawn()
    torch.testing.assert_close(t1.token_loss(cfg, given)[0], rloo.token_loss(rloo.Config(), given)[0])


def test_gradient_is_that_of_a_slow_reference():
    """Two tokens' distributions over three entries, so that the entropy moves with the log-probs."""
    logits = torch.tensor([[0.5, -0.2, 0.1], [1.0, 0.0, -1.0]], requires_grad=True)
    logp_RV = torch.log_softmax(logits, -1)
    columns = {
        "logp": logp_RV[:, 0],
        "behaviour": torch.zeros(2),
        "adv": torch.tensor([2.0, -1.0]),
        "mask": torch.tensor([True, True]),
        "share": torch.tensor([0.5, 0.25]),
        "entropy": -(logp_RV.exp() * logp_RV).sum(-1),
    }
    loss, _ = t1.token_loss(t1.Config(entropy_coef=0.3), base.Tokens(**columns))
    got = torch.autograd.grad(loss, logits)[0]
    expected = torch.zeros(2, 3)
    p = torch.softmax(logits.detach(), -1)
    for t in range(2):
        share, adv = columns["share"][t], columns["adv"][t]
        entropy = -sum(p[t, v] * p[t, v].log() for v in range(3))
        for v in range(3):
            expected[t, v] += -share * adv * (float(v == 0) - p[t, v])  # of A log p of entry 0
            expected[t, v] += 0.3 * share * p[t, v] * (p[t, v].log() + entropy)  # of -H
    torch.testing.assert_close(got, expected)


def test_what_the_paper_does_not_publish_must_be_chosen():
    with pytest.raises(ConfigError, match="no value of entropy_coef and reference_ema"):
        base.load_algorithm(config.AlgorithmChoice(name="t1", preset="paper"))
    with pytest.raises(ConfigError, match="no value of reference_ema"):
        base.load_algorithm(config.AlgorithmChoice(name="t1", preset="paper", options={"entropy_coef": 0.0}))
    _, cfg = base.load_algorithm(
        config.AlgorithmChoice(name="t1", preset="paper", options={"entropy_coef": 0.01, "reference_ema": 0.05})
    )
    assert (cfg.kl_coef, cfg.aggregation, t1.needs(cfg)) == (2e-4, "seq_sum", {"reference", "entropy"})
