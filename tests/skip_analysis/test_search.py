"""The search for ρ: known minima, what is evaluated, and that the untuned network is kept where it is best."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DModel
from hypothesis import given
from hypothesis import strategies as st
from support.skip_reference import randomised

import fewstep as fs
from fewstep.skip_analysis import Objective, golden_section, search
from fewstep.skip_analysis.search import evaluations


@given(st.floats(0.5, 1.0), st.integers(4, 12))
def test_golden_sections_close_in_on_a_minimum(where, points):
    seen = []

    def function(x):
        seen.append(x)
        return abs(x - where) ** 1.5

    best = golden_section(function, (0.5, 1.0), points)
    assert len(seen) == points and all(0.5 <= x <= 1.0 for x in seen)
    assert abs(best - where) <= 0.5 * 0.6181 ** (points - 1) + 1e-9
    assert abs(best - where) == pytest.approx(min(abs(x - where) for x in seen))


def test_a_fixed_range_is_not_evaluated():
    assert golden_section(lambda x: 1 / 0, (0.7, 0.7), 5) == 0.7


@pytest.fixture(scope="module")
def denoiser():
    network = UNet2DModel(
        sample_size=8,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        layers_per_block=1,
        in_channels=2,
        out_channels=2,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
    )
    return fs.Denoiser(randomised(network), fs.processes.EDM(), "x0", shape=(2, 8, 8))


class Nearness(Objective):
    """How far the network's output is from its output at a known ρ."""

    def __init__(self, denoiser, bottom, top=1.0):
        self.denoiser, self.seen = denoiser, []
        with fs.skip.tuned(denoiser, bottom, top):
            self.target = self.rows(range(3))

    def rows(self, seeds):
        self.seen.append(list(seeds))
        x = torch.stack([torch.randn(2, 8, 8, generator=torch.Generator().manual_seed(s)) for s in seeds])
        return self.denoiser(x, torch.tensor(1.0))

    def value(self, rows):
        return float((rows - self.target).square().mean())


@pytest.mark.parametrize(("method", "points", "near"), [("golden", 8, 0.02), ("grid", 6, 0.051)])
def test_the_rho_of_the_target_is_found(denoiser, method, points, near):
    objective, told = Nearness(denoiser, 0.72), []
    before = objective.rows(range(3))
    found = search(denoiser, objective, range(3), method=method, points=points, progress=told.append)
    assert found.best.bottom == pytest.approx(0.72, abs=near) and found.best.top == 1.0
    assert list(found.points) == told and (told[0].bottom, told[0].top) == (1.0, 1.0)
    assert len(told) == points + (method == "golden")
    assert found.profile.factors(4)[0] == found.best.bottom and found.profile.skips == 4
    assert torch.equal(objective.rows(range(3)), before)
    assert objective.seen[2:-1] == [[0, 1, 2]] * len(told) + [[3, 4, 5]] * 2


def test_both_ends_are_searched(denoiser):
    objective = Nearness(denoiser, 0.7, 0.9)
    found = search(denoiser, objective, range(3), bottom=(0.5, 1.0), top=(0.8, 1.0), method="grid", points=3)
    assert (found.best.bottom, found.best.top) == (0.75, 0.9)
    assert len(found.points) == 9
    golden = search(denoiser, objective, range(3), top=(0.8, 1.0), points=5)
    assert len({(p.bottom, p.top) for p in golden.points}) == 11
    assert golden.best.value < min(p.value for p in golden.points if p.top == 1.0)


class Levels(Nearness):
    """How far outputs at two noise levels are from those with skips scaled at one of them."""

    def rows(self, seeds):
        self.seen.append(list(seeds))
        x = torch.stack([torch.randn(2, 8, 8, generator=torch.Generator().manual_seed(s)) for s in seeds])
        return torch.cat([self.denoiser(x * level, torch.tensor(level)) for level in (0.5, 3.0)], dim=1)

    def __init__(self, denoiser, bottom, window):
        self.denoiser, self.seen = denoiser, []
        with fs.skip.tuned(denoiser, bottom, sigma_window=window):
            self.target = self.rows(range(3))


@pytest.mark.parametrize("window", [(None, 1.0), (1.0, None), None])
def test_the_window_of_the_target_is_found_with_its_rho(denoiser, window):
    objective = Levels(denoiser, 0.75, window)
    windows = [None, (None, 1.0), (1.0, None)]
    found = search(denoiser, objective, range(3), windows=windows, method="grid", points=3)
    assert (found.best.window, found.best.bottom, found.best.value) == (window, 0.75, 0.0)
    assert found.profile == fs.skip.Profile(0.75, sigma_window=window, skips=4)
    assert [point for point in found.points if not point.tuned] == [found.points[0]]
    assert len(found.points) == 7 and all(seeds == [0, 1, 2] for seeds in objective.seen[1:8])
    assert evaluations((0.5, 1.0), (1.0, 1.0), "grid", 3, windows=windows) == 12


def test_rho_is_searched_together_with_tau(denoiser):
    """The best pair need not have the τ that is best without tuning; the check is against the best untuned one."""

    class Shifted(Nearness):
        def __init__(self, denoiser, bottom, more):
            super().__init__(denoiser, bottom)
            self.more = more

        def value(self, rows):
            return super().value(rows) + self.more

    objectives = {
        0.0: Shifted(denoiser, 0.5, 0.1),
        0.4: Shifted(denoiser, 0.75, 0.0),
        "1@0.05:1": Shifted(denoiser, 1, 0.0),
    }
    objectives["1@0.05:1"].more = 1e-9
    found = search(denoiser, objectives, range(3), method="grid", points=3)
    assert (found.best.tau, found.best.bottom, found.best.value) == (0.4, 0.75, 0.0)
    assert [point.tau for point in found.points if not point.tuned] == [0.0, 0.4, "1@0.05:1"]
    untuned = min(point.value for point in found.points if not point.tuned)
    assert untuned == 1e-9 and objectives["1@0.05:1"].seen[-1] == [3, 4, 5] == objectives[0.4].seen[-1]
    assert evaluations((0.5, 1.0), (1.0, 1.0), "grid", 3, taus=3) == 14


def test_no_tuning_is_kept_where_it_is_best(denoiser):
    found = search(denoiser, Nearness(denoiser, 1.0), range(3), bottom=(0.5, 0.9), points=3)
    assert (found.best.bottom, found.best.top, found.check) == (1.0, 1.0, None)
    assert set(found.profile.factors(4)) == {1.0}


def test_the_check_says_whether_it_holds_on_fresh_seeds(denoiser):
    class Energy(Nearness):
        def value(self, rows):
            return float(rows.square().mean())

    found = search(denoiser, Energy(denoiser, 1.0), range(20), points=3)
    check = found.check
    assert check.tuned < check.untuned and check.low < check.tuned - check.untuned < check.high < 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "gold"}, "did you mean 'golden'"),
        ({"points": 1}, "points is 1"),
        ({"bottom": (0.9, 0.5)}, "low ≤ high"),
        ({"top": (-1.0, 0.5)}, "low ≤ high"),
        ({"windows": []}, "windows is"),
        ({"windows": [(2.0, 1.0)]}, "sigma_window is"),
    ],
)
def test_mistakes(denoiser, settings, message):
    with pytest.raises(ValueError, match=message):
        search(denoiser, Nearness(denoiser, 1.0), range(3), **settings)


def test_no_objective_is_refused(denoiser):
    with pytest.raises(ValueError, match="one for each τ"):
        search(denoiser, {}, range(3))


def test_evaluations_are_known_beforehand():
    assert evaluations((0.5, 1.0), (1.0, 1.0), "golden", 6) == 9
    assert evaluations((0.5, 1.0), (0.9, 1.0), "grid", 4) == 19
