"""A research network: trained here in seconds on points of the plane, sampled in few calls, and measured.

python examples/research_network.py
"""

from __future__ import annotations

import math

import torch
from torch import nn

import fewstep as fs

PROCESS = fs.processes.VPCosine()
"""x_t = α·x_0 + σ·ε, with α a cosine of t."""


class Network(nn.Module):
    """A small network that predicts the noise ε of points of the plane; it is given λ as its time."""

    def __init__(self, width: int = 96) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2 + 8, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2)
        )

    def forward(self, x: torch.Tensor, half_logsnr: torch.Tensor) -> torch.Tensor:
        """Return ε̂ [batch, 2] of x [batch, 2] and λ [batch]."""
        angles = half_logsnr[:, None] * torch.tensor([0.25, 0.5, 1.0, 2.0])
        return self.layers(torch.cat([x, angles.sin(), angles.cos()], dim=1))


def ring(count: int) -> torch.Tensor:
    """Return points of the data set: eight spots on a ring."""
    angle = 0.25 * math.pi * torch.randint(8, (count, 1))
    return torch.cat([angle.cos(), angle.sin()], dim=1) + 0.1 * torch.randn(count, 2)


def trained(steps: int = 800) -> Network:
    """Return a network trained on the ring."""
    torch.manual_seed(0)
    network = Network()
    optimiser = torch.optim.Adam(network.parameters(), 2e-3)
    for _ in range(steps):
        x_0, noise = ring(256), torch.randn(256, 2)
        half_logsnr = 9.0 * torch.rand(256) - 4.9
        t = PROCESS.time(half_logsnr)
        alpha, sigma = PROCESS.alpha(t).float()[:, None], PROCESS.sigma(t).float()[:, None]
        loss = (network(alpha * x_0 + sigma * noise, half_logsnr) - noise).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return network.eval()


def main() -> None:
    """Train, sample with several solvers, and compare them with the network's own solution."""
    # What the network predicts, and what it wants to be told for time t. D, its guess of x_0, follows.
    denoiser = fs.Denoiser(trained(), PROCESS, "epsilon", shape=(2,), network_time=PROCESS.half_logsnr)
    seeds = range(500)

    fine = fs.grids.uniform_logsnr(PROCESS, 200)
    solution = fs.sample(denoiser, fs.UniPC(order=3), fine, seeds=seeds)

    print("solver        calls   error to the network's own solution")
    for calls in (5, 8, 12):
        for solver in (fs.DDIM(), fs.DPMSolverPP(order=2), fs.UniPC(order=2)):
            grid = fs.grids.uniform_logsnr(PROCESS, calls)
            samples = fs.sample(denoiser, solver, grid, seeds=seeds)
            error = (samples - solution).square().mean().sqrt()
            print(f"{type(solver).__name__:13} {calls:5}   {float(error):.3f}")


if __name__ == "__main__":
    main()
