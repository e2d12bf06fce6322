"""The complexity of a network: closed forms of linear ones, differences, guidance, and ρ."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import fewstep as fs
from fewstep import skip
from fewstep.skip_analysis import RealData, complexity, diagnose

EDM = fs.processes.EDM()
LEVELS = (0.1, 2.0)
X_0 = torch.randn(5, 2, 4, 4, generator=torch.Generator().manual_seed(1))


class Linear(nn.Module):
    """U(x) = A·x, whose Jacobian is A whatever x is; with ``smooth`` False autograd does not see it."""

    def __init__(self, matrix, smooth=True):
        super().__init__()
        self.matrix, self.smooth = nn.Parameter(matrix), smooth

    def forward(self, x, t, label=None):
        if not self.smooth:
            x = x.detach()
        scale = 1.0 if label is None else label.view(-1, 1, 1, 1).to(x.dtype)
        return scale * (x.flatten(1) @ self.matrix.T).view_as(x)


def data(network, **more):
    return RealData(fs.Denoiser(network, EDM, "edm"), X_0, **more)


@pytest.mark.parametrize("differences", [False, True])
def test_of_a_diagonal_jacobian_one_product_is_exact(differences):
    """(±a_i) has the norm of a, whatever the signs. A difference of float32 outputs loses ε^{2/3}, here below 1e-3."""
    entries = torch.linspace(0.5, 2.0, 32)
    found = complexity(data(Linear(entries.diag())), LEVELS, differences=differences)
    expected = float(entries.double().norm()) / 32**0.5
    torch.testing.assert_close(found, torch.full((2, 5), expected).double(), rtol=1e-3 if differences else 1e-6, atol=0)


@pytest.mark.parametrize("differences", [False, True])
def test_of_any_jacobian_its_square_has_the_mean_of_frobenius_norm(differences):
    """The variance of ‖vᵀA‖² is at most 2‖AAᵀ‖² (Hutchinson); five of its deviations over 400 samples."""
    matrix = torch.randn(32, 32, generator=torch.Generator().manual_seed(2)) / 8
    x_0 = torch.randn(400, 2, 4, 4, generator=torch.Generator().manual_seed(3))
    samples = RealData(fs.Denoiser(Linear(matrix), EDM, "edm"), x_0)
    squares = complexity(samples, (1.0,), differences=differences).square()
    product = (matrix @ matrix.T).double()
    error = 5 * (2 * float(product.square().sum()) / 400) ** 0.5 / 32
    assert float(squares.mean()) == pytest.approx(float(product.trace()) / 32, abs=error)


def test_what_cannot_be_differentiated_is_by_differences():
    matrix = torch.eye(32) * 0.7
    hidden = complexity(data(Linear(matrix, smooth=False)), LEVELS)
    torch.testing.assert_close(hidden, complexity(data(Linear(matrix)), LEVELS, differences=True))


def test_batches_and_progress_change_nothing():
    matrix = torch.randn(32, 32, generator=torch.Generator().manual_seed(2))
    calls = []
    some = complexity(data(Linear(matrix), batch_size=2, progress=lambda: calls.append(1)), LEVELS)
    # Products of 32 terms in another order: a relative 32·2⁻²⁴ at most.
    torch.testing.assert_close(some, complexity(data(Linear(matrix)), LEVELS), rtol=1e-5, atol=0)
    assert len(calls) == 6


@pytest.mark.parametrize("batched", [True, False])
def test_guidance_calls_twice_and_the_mean_is_taken(batched):
    network = Linear(torch.eye(32))
    denoiser = fs.guidance.ClassifierFree(fs.Denoiser(network, EDM, "edm"), 2.0, torch.tensor([3.0]), batched=batched)
    found = complexity(RealData(denoiser, X_0, cond=torch.full((5,), 5.0)), LEVELS)
    torch.testing.assert_close(found, torch.full((2, 5), 4.0).double())


class Skipping(nn.Module):
    """U(x) = 0.5·x + ρ·0.5·x."""

    def __init__(self):
        super().__init__()
        self.decoder = Sum()

    def forward(self, x, t):
        return self.decoder(0.5 * x, 0.5 * x)


class Sum(nn.Module):
    def forward(self, hidden, joined):
        return hidden + joined


def test_it_is_of_the_tuned_network():
    network = Skipping()
    with skip.tuned(network, rho=0.6, sites=[skip.Site("decoder", "joined")]):
        found = complexity(data(network), LEVELS)
    torch.testing.assert_close(found, torch.full((2, 5), 0.8).double())
    assert not network._forward_pre_hooks


def test_the_diagnosis_has_it_over_rho():
    from diffusers import UNet2DModel

    torch.manual_seed(0)
    network = UNet2DModel(
        sample_size=4, in_channels=2, out_channels=2, block_out_channels=(8, 8), norm_num_groups=4, layers_per_block=1,
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
    ).eval()  # fmt: skip
    samples = RealData(fs.Denoiser(network, EDM, "edm"), X_0)
    found = diagnose(samples, skip.Profile(0.6), levels=LEVELS, parts=["complexity"]).complexity
    assert list(found) == pytest.approx([0.9, 0.8, 0.7, 0.6])
    for rho, change in found.items():
        with skip.tuned(network, rho):
            expected = complexity(samples, LEVELS).mean(1)
        torch.testing.assert_close(change.tuned, expected, rtol=1e-6, atol=0)


def test_a_network_that_is_not_called_is_refused():
    class Idle(fs.Denoiser):
        def __call__(self, x_t, t, cond=None):
            return x_t

    with pytest.raises(ValueError, match="did not call its Linear"):
        complexity(RealData(Idle(Linear(torch.eye(32)), EDM), X_0), LEVELS)
