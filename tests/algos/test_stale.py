"""Reused stale rollouts, on a policy of four answers that can be followed by hand.

The data are fixed: answer 0 is right and a fifth of them, answers 1 and 2 are wrong. Answer 3 was never sampled; the
learner's policy gives it most of its mass. Pushing the wrong answers down without a bound lifts the unseen answer.
"""

import pytest
import torch

from rlsp_async import config
from rlsp_async.algos import base, corrections
from rlsp_async.algos.corrections import token_view

ANSWERS = torch.tensor([0, 1, 1, 2, 2])
BEHAVIOUR = torch.tensor([0.2, 0.4, 0.4, 0.4, 0.4]).log()


def trained(name, preset="", steps=100, **options):
    """Probabilities of the four answers after `steps` updates on the same five rollouts of one token."""
    module, cfg = base.load_algorithm(config.AlgorithmChoice(name=name, preset=preset, options=options))
    logits = torch.tensor([0.05, 0.05, 0.05, 0.85]).log().requires_grad_()
    adv = torch.tensor([1.0, -1, -1, -1, -1])
    mask, rollout, share = torch.ones(5, dtype=torch.bool), torch.arange(5), torch.full((5,), 0.2)
    for _ in range(steps):
        logp = logits.log_softmax(0)[ANSWERS]
        view = token_view(logp, BEHAVIOUR, adv, mask, rollout)
        factor = corrections.correct(cfg.corrections, view, corrections.measure_limit(cfg.corrections, view))[0]
        given = base.Tokens(logp=logp, behaviour=BEHAVIOUR, adv=adv, mask=mask, share=share * factor, rollout=rollout)
        (grad,) = torch.autograd.grad(module.token_loss(cfg, given)[0], logits)
        logits = (logits - 2.0 * grad).detach().requires_grad_()
    return logits.softmax(0).tolist()


@pytest.mark.parametrize("name", ["reinforce", "rloo"])
def test_without_correction_the_mass_goes_where_nobody_looked(name):
    right, *_, unseen = trained(name)
    assert (right < 0.01, unseen > 0.99) == (True, True)


@pytest.mark.parametrize(
    ("name", "preset"), [("topr", "paper"), ("topr", "truncated"), ("cispo", ""), ("reinforce", "aipo")]
)
def test_with_it_the_right_answer_wins(name, preset):
    assert trained(name, preset, steps=300)[0] > 0.95


def test_positives_start_slowly_where_they_are_truncated():
    """The paper's reason for plain likelihood on positives: the improbable right answer is the one worth learning."""
    assert trained("topr", "paper", steps=5)[0] > 2 * trained("topr", "truncated", steps=5)[0]
