"""Profiles: ρ over depth, its weight over the noise level, and their JSON."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fewstep import grids, processes, skip
from fewstep.skip.noise_level import FactorTable

NUMBERS = st.floats(0.0, 3.0)
EDM = processes.EDM()


def factors_at(profile, sigma, process=EDM, network_time=None):
    """Return ρ of four skips at the noise level σ/α = ``sigma``."""
    network_time = network_time or process.network_time
    table = FactorTable(profile, profile.factors(4), process, network_time)
    time = network_time(process.time(-torch.tensor([sigma], dtype=torch.float64).log()))
    return table(time.float())[0].tolist()


@given(NUMBERS, NUMBERS, st.integers(2, 20))
def test_factors_run_linearly_from_the_deepest_to_the_outermost(bottom, top, count):
    factors = skip.Profile(bottom, top).factors(count)
    depths = range(count - 1, -1, -1)
    assert factors == pytest.approx([top + (bottom - top) * d / (count - 1) for d in depths])
    assert (factors[0], factors[-1]) == (bottom, top)


def test_one_number_and_a_list():
    assert skip.Profile(rho=0.7).factors(3) == [0.7, 0.7, 0.7]
    assert skip.Profile(rho=[0.5, 0.6, 1]).factors(3) == [0.5, 0.6, 1.0]
    assert skip.Profile(0.5).factors(1) == [0.5]


def test_a_list_of_another_length_is_refused():
    with pytest.raises(ValueError, match="2 values, the network 3 skips"):
        skip.Profile(rho=[0.5, 0.6]).factors(3)


@pytest.mark.parametrize(
    "process",
    [
        EDM,
        processes.VPLinear(),
        processes.VPCosine(),
        processes.VPDiscrete.from_betas(),
        processes.RectifiedFlow(shift=3.0),
    ],
    ids=repr,
)
def test_a_window_holds_both_its_ends_in_every_process(process):
    profile = skip.Profile(rho=0.5, sigma_window=(0.05, 1.0))
    for sigma, expected in [(0.03, 1.0), (0.0499, 1.0), (0.05, 0.5), (0.2, 0.5), (1.0, 0.5), (1.01, 1.0), (5.0, 1.0)]:
        assert factors_at(profile, sigma, process) == [expected] * 4, sigma


def test_a_window_in_the_networks_own_time():
    profile = skip.Profile(rho=0.5, sigma_window=(0.05, 1.0))
    for time in (lambda t: 0.25 * t.log(), lambda t: 1000 * t, lambda t: -t):
        assert [factors_at(profile, sigma, network_time=time)[0] for sigma in (0.04, 0.3, 2.0)] == [1.0, 0.5, 1.0]


def test_open_windows():
    below, above = skip.Profile(rho=0.5, sigma_window=(None, 1.0)), skip.Profile(rho=0.5, sigma_window=(1.0, None))
    both = skip.Profile(rho=0.5, sigma_window=(None, None))
    assert [factors_at(p, 0.01)[0] for p in (below, above, both)] == [0.5, 1.0, 0.5]
    assert [factors_at(p, 50.0)[0] for p in (below, above, both)] == [1.0, 0.5, 0.5]


@given(st.floats(-1.5, 1.5))
def test_a_ramp_is_linear_in_the_logarithm_of_the_noise_level(position):
    profile = skip.Profile(rho=0.5, sigma_window=(1.0, None), ramp=1.0)
    weight = min(max(1.0 + position, 0.0), 1.0)
    assert factors_at(profile, math.exp(position))[0] == pytest.approx(1 - 0.5 * weight, abs=1e-4)


def test_a_weight_as_a_function_and_as_points():
    function = skip.Profile(0.5, 1.0, sigma_weight=lambda s: s / (1 + s))
    points = skip.Profile(0.5, 1.0, sigma_weight=[(0.1, 0.0), (10.0, 1.0)])
    for sigma in (0.1, 0.7, 2.0, 9.0):
        base = torch.tensor(skip.Profile(0.5, 1.0).factors(4))
        for profile, weight in [(function, sigma / (1 + sigma)), (points, 0.5 + 0.5 * math.log10(sigma))]:
            expected = 1 + weight * (base - 1)
            assert factors_at(profile, sigma) == pytest.approx(expected.tolist(), abs=1e-4)


@pytest.mark.parametrize("grid", [grids.karras(EDM, 5), grids.uniform_time(processes.RectifiedFlow(), 5)], ids=repr)
def test_values_per_step_hold_at_every_steps_time(grid):
    bottoms = [0.5, 0.6, 1.0, 1.2, 0.9]
    profile = skip.Profile.per_step(grid, bottoms)
    table = FactorTable(profile, profile.factors(4), grid.process, grid.process.network_time)
    rows = table(grid.times[:5].float())
    for row, bottom in zip(rows.tolist(), bottoms, strict=True):
        assert row == pytest.approx(skip.Profile(bottom).factors(4), abs=1e-9)


def test_beyond_the_known_times_the_last_factor_holds():
    profile = skip.Profile(0.5, 0.5, sigma_weight=[(0.1, 0.0), (2.0, 1.0)])
    table = FactorTable(profile, profile.factors(2), EDM, EDM.network_time)
    assert table(torch.tensor([-math.inf, math.inf])).tolist() == [[1.0, 1.0], [0.5, 0.5]]


def test_per_step_needs_a_value_for_each_step():
    with pytest.raises(ValueError, match="for 5 steps"):
        skip.Profile.per_step(grids.karras(EDM, 5), [0.5, 0.6])


@given(
    st.builds(
        skip.Profile,
        NUMBERS,
        NUMBERS,
        st.none() | NUMBERS | st.lists(NUMBERS, min_size=1).map(tuple),
        st.none() | st.tuples(st.none() | st.floats(1e-4, 0.5), st.none() | st.floats(1.0, 1e3)),
    )
)
def test_json_gives_the_same_profile_back(profile):
    assert skip.Profile.from_json(profile.to_json()) == profile


def test_saving_and_loading(tmp_path):
    profile = skip.Profile(0.6, sigma_window=(0.05, 1.0), ramp=0.5)
    profile.save(tmp_path / "profile.json")
    assert skip.load(tmp_path / "profile.json") == profile
    assert [path.name for path in tmp_path.iterdir()] == ["profile.json"]
    sampled = skip.Profile(0.6, sigma_weight=math.tanh)
    assert skip.Profile.from_json(sampled.to_json()) == sampled


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[1]", "format is 'list'"),
        ('{"format": "fewstep-skip/9", "bottom": 0.5}', "reads 'fewstep-skip/1'"),
        ('{"format": "fewstep-skip/1", "botom": 0.5}', "botom is unknown"),
        ('{"format": "fewstep-skip/1", "bottom": null}', "bottom is None"),
        ('{"format": "fewstep-skip/1", "bottom": "much"}', "bottom is 'much'"),
        ('{"format": "fewstep-skip/1", "sigma_window": [1]}', "sigma_window.1. is missing"),
        ('{"format": "fewstep-skip/1", "ramp": null, "sigma_window": [0.1, 1]}', "ramp is None"),
        ('{"format": "fewstep-skip/1", "sigma_weight": 3}', "sigma_weight is 3"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, text, message):
    (tmp_path / "profile.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        skip.load(tmp_path / "profile.json")


def test_what_a_profile_was_made_for_is_kept():
    origin = {"model": {"fingerprint": "abc"}, "points": [{"bottom": 0.7, "value": 1.5}]}
    profile = skip.Profile(0.7, skips=4, origin=origin)
    again = skip.Profile.from_json(profile.to_json())
    assert again == profile and again.origin == origin and again.skips == 4
    assert profile == skip.Profile(0.7, skips=4) != skip.Profile(0.7)
    assert profile.factors(4) == skip.Profile(0.7).factors(4)


def test_a_network_with_another_number_of_skips_is_refused():
    with pytest.raises(ValueError, match="made for a network of 4 skips, this one has 5"):
        skip.Profile(0.7, skips=4).factors(5)


@pytest.mark.parametrize("settings", [{"skips": 0}, {"skips": 2.5}, {"origin": ["a"]}])
def test_what_is_no_number_of_skips_or_no_origin_is_refused(settings):
    with pytest.raises(ValueError, match="skips is|origin is"):
        skip.Profile(**settings)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match="nothing.json"):
        skip.load(tmp_path / "nothing.json")


def test_the_file_is_plain_json():
    data = json.loads(skip.Profile(0.7, sigma_window=(0.05, 1.0)).to_json())
    assert data == {
        "format": "fewstep-skip/1",
        "bottom": 0.7,
        "top": 1.0,
        "rho": None,
        "sigma_window": [0.05, 1.0],
        "ramp": 0.0,
        "sigma_weight": None,
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bottom": -0.1}, "bottom is -0.1"),
        ({"top": math.nan}, "top is nan"),
        ({"rho": [0.5, math.inf]}, r"rho\[1\] is inf"),
        ({"rho": []}, "rho is empty"),
        ({"sigma_window": (1.0, 0.5)}, "sigma_window is"),
        ({"ramp": 0.5}, "with a sigma_window"),
        ({"ramp": -1.0, "sigma_window": (0.1, 1.0)}, "ramp is -1.0"),
        ({"sigma_weight": []}, "rising"),
        ({"sigma_weight": [(1.0, 0.5), (0.5, 1.0)]}, "rising"),
        ({"sigma_weight": [(1.0, 0.5)], "sigma_window": (0.1, 1.0)}, "leave one out"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        skip.Profile(**settings)


def test_a_network_time_that_turns_back_is_refused():
    profile = skip.Profile(0.5, sigma_window=(0.1, 5.0))
    with pytest.raises(ValueError, match="monotonic"):
        FactorTable(profile, [0.5], EDM, lambda t: (t - 0.5) ** 2)
