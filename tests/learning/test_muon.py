"""Stacked Muon makes torch's steps."""

import pytest
import torch

from rlsp_async.learning import muon


@pytest.mark.parametrize("shape", [(16, 24), (24, 16), (16, 16)])
def test_stacked_muon_makes_torchs_steps(shape):
    torch.manual_seed(0)
    start = [torch.randn(shape) for _ in range(3)]
    runs = []
    for kind in (torch.optim.Muon, muon.StackedMuon):
        matrices = [m.clone().requires_grad_() for m in start]
        optimizer = kind(matrices, lr=0.02, weight_decay=0.1, adjust_lr_fn="original")
        generator = torch.Generator().manual_seed(1)
        for _ in range(3):
            for m in matrices:
                m.grad = torch.randn(shape, generator=generator)
            optimizer.step()
        runs.append(torch.stack([m.detach() for m in matrices]))
    moved = (runs[0] - torch.stack(start)).abs().mean()
    assert (runs[0] - runs[1]).abs().mean() < 0.02 * moved  # torch computes in bfloat16


def test_singular_values_come_near_one():
    torch.manual_seed(0)
    values = torch.linalg.svdvals(muon.orthogonalise(torch.randn(2, 12, 40)))
    assert values.min() > 0.6
    assert values.max() < 1.3


def test_large_matrices_go_one_by_one():
    assert type(muon.make_muon([torch.zeros(8, 8, requires_grad=True)], 0.1, 0.0)) is muon.StackedMuon
    assert type(muon.make_muon([torch.zeros(512, 512, requires_grad=True)], 0.1, 0.0)) is torch.optim.Muon


def test_a_matrix_without_gradient_stays():
    matrices = [torch.ones(4, 4, requires_grad=True) for _ in range(2)]
    matrices[0].grad = torch.ones(4, 4)
    muon.StackedMuon(matrices, lr=0.1, weight_decay=0.0).step()
    assert not torch.equal(matrices[0], torch.ones(4, 4))
    assert torch.equal(matrices[1], torch.ones(4, 4))
