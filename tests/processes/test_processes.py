"""Processes: exact inverses, accuracy at both ends, closed forms, and their description as data."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mpmath import mp, mpf
from support.rounding import rounding, spread

import fewstep as fs
from fewstep.errors import InputError
from fewstep.processes import EDM, RectifiedFlow, VPCosine, VPDiscrete, VPLinear, from_dict, named

ALL = [
    VPLinear(),
    VPLinear(0.05, 12.0),
    VPCosine(),
    VPDiscrete.from_betas(),
    VPDiscrete.from_betas(0.00085, 0.012, schedule="scaled_linear"),
    EDM(),
    EDM(0.01, 500.0),
    RectifiedFlow(),
    RectifiedFlow(shift=3.0),
]
each = pytest.mark.parametrize("process", ALL, ids=repr)

REFUSED = "does not take these settings|is 'abc'|='abc'|neither a number|num is -1"


@each
def test_time_inverts_half_logsnr(process):
    t = torch.linspace(process.t_min, process.t_max, 2001, dtype=torch.float64)
    half_logsnr = process.half_logsnr(t)
    off = spread(process.time, half_logsnr, rounding(16) * (1.0 + half_logsnr.abs()))
    assert bool(((process.time(half_logsnr) - t).abs() <= off + rounding(16) * t).all())


@each
@given(half_logsnr=st.floats(-15.0, 15.0))
def test_half_logsnr_inverts_time(process, half_logsnr):
    t = process.time(half_logsnr)
    if float(t) > process.t_limit:
        return
    off = spread(process.half_logsnr, t, rounding(16) * t) + rounding(16) * (1.0 + abs(half_logsnr))
    assert abs(float(process.half_logsnr(t)) - half_logsnr) <= float(off)


@each
def test_half_logsnr_is_the_log_of_the_ratio_and_falls(process):
    t = torch.linspace(process.t_min, process.t_max, 501, dtype=torch.float64)
    half_logsnr = process.half_logsnr(t)
    assert torch.allclose(half_logsnr, torch.log(process.alpha(t) / process.sigma(t)), rtol=1e-12, atol=1e-12)
    assert bool((half_logsnr.diff() < 0).all())


@each
def test_time_zero_is_free_of_noise(process):
    assert float(process.alpha(0.0)) == 1.0
    assert float(process.sigma(0.0)) == 0.0
    assert math.isinf(float(process.half_logsnr(0.0)))


@each
@pytest.mark.parametrize("value", [0.5, np.float32(0.5), np.array([0.25, 0.5]), torch.tensor([0.5]), [0.25, 0.5]])
def test_any_number_gives_float64_of_its_shape(process, value):
    for method in (process.alpha, process.sigma, process.half_logsnr, process.time):
        out = method(value)
        assert out.dtype == torch.float64
        assert tuple(out.shape) == np.shape(value)


@each
def test_variance_is_preserved_where_it_should_be(process):
    t = torch.linspace(process.t_min, process.t_max, 101, dtype=torch.float64)
    if isinstance(process, (VPLinear, VPCosine, VPDiscrete)):
        assert torch.allclose(process.alpha(t) ** 2 + process.sigma(t) ** 2, torch.ones_like(t), atol=1e-15)


@pytest.mark.parametrize("t", [1e-12, 1e-7, 1e-3, 0.1, 0.24, 0.26, 0.7, 0.9946])
def test_cosine_and_linear_keep_their_digits_against_fifty_of_them(t):
    mp.dps = 50
    s = mpf(8) / 1000
    exact_t = mpf(t)
    cosine = mp.cos(mp.pi / 2 * (exact_t + s) / (1 + s)) / mp.cos(mp.pi / 2 * s / (1 + s))
    beta_min, beta_max = mpf(0.1), mpf(20)
    linear = mp.exp(-(exact_t**2) * (beta_max - beta_min) / 4 - exact_t * beta_min / 2)
    for process, alpha in ((VPCosine(), cosine), (VPLinear(), linear)):
        sigma = mp.sqrt(1 - alpha**2)
        assert float(process.sigma(t)) == pytest.approx(float(sigma), rel=1e-12)
        assert float(process.half_logsnr(t)) == pytest.approx(float(mp.log(alpha / sigma)), rel=1e-12, abs=1e-12)


def test_discrete_meets_its_training_values():
    process = VPDiscrete.from_betas()
    index = torch.arange(1000)
    t = (index + 1) / 1000.0
    # t is a float32 here, and log ᾱ falls by N·β ≤ 20 per unit of t.
    assert torch.allclose(process.alpha(t) ** 2, process.alphas_cumprod, rtol=rounding(1, 20.0, torch.float32))
    assert torch.allclose(process.network_time(t.double()), index.double(), atol=1e-4)


def test_discrete_rebuilds_the_betas_of_diffusers():
    from diffusers import DDPMScheduler

    for ours, theirs in (("linear", (1e-4, 0.02)), ("scaled_linear", (0.00085, 0.012))):
        peer = DDPMScheduler(beta_schedule=ours, beta_start=theirs[0], beta_end=theirs[1])
        process = VPDiscrete.from_betas(*theirs, schedule=ours)
        assert torch.allclose(process.alphas_cumprod.float(), peer.alphas_cumprod, rtol=2e-5)


def test_discrete_copies_its_knots_to_a_device_once(monkeypatch):
    process, copied, to = VPDiscrete.from_betas(), [], torch.Tensor.to

    def counted(self, *args, **settings):
        copied.extend(arg for arg in args if isinstance(arg, torch.device))
        return to(self, *args, **settings)

    monkeypatch.setattr(torch.Tensor, "to", counted)
    t = torch.empty(3, device="meta", dtype=torch.float64)
    for method in (process.alpha, process.time, process.sigma):
        assert method(t).device == t.device
    assert copied == [t.device]
    for twin in (copy.deepcopy(process), pickle.loads(pickle.dumps(process))):
        assert twin == process and hash(twin) == hash(process)
        assert torch.equal(twin.alpha(0.3), process.alpha(0.3))
        assert twin.alpha(t).device == t.device
    assert len(copied) == 3  # Its copies on devices are not copied or stored with it.


def test_flow_shift_bends_the_clock_only():
    plain, shifted = RectifiedFlow(), RectifiedFlow(shift=3.0)
    assert float(shifted.from_clock(0.5)) == pytest.approx(0.75)
    assert float(shifted.clock(shifted.from_clock(0.3))) == pytest.approx(0.3, abs=rounding(8))
    assert float(plain.half_logsnr(0.3)) == float(shifted.half_logsnr(0.3))
    assert math.isinf(float(plain.half_logsnr(1.0)))


@each
def test_description_gives_the_process_back(process):
    assert from_dict(process.to_dict()) == process


def test_processes_by_name():
    assert named("flow:shift=3") == RectifiedFlow(3.0)
    assert named("vp-discrete") == VPDiscrete.from_betas()
    assert named("edm:sigma_max=10") == EDM(sigma_max=10.0)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: VPLinear(beta_min=-1.0), "beta_min is -1.0"),
        (lambda: VPLinear(beta_min=5.0, beta_max=1.0), "below beta_min"),
        (lambda: EDM(1.0, 0.5), "not above sigma_min"),
        (lambda: RectifiedFlow(0.0), "shift is 0.0"),
        (lambda: RectifiedFlow(None), "shift is None"),
        (lambda: named("edm:sigma_min=abc"), "sigma_min is 'abc'"),
        (lambda: named("edm:sigma_min=true"), "sigma_min is True"),
        (lambda: named("vp-discrete:beta_start=abc"), REFUSED),
        (lambda: named("vp-discrete:num=-1"), REFUSED),
        (
            lambda: from_dict({"name": "vp-discrete", "alphas_cumprod": ["a"]}),
            REFUSED,
        ),
        (lambda: VPDiscrete([0.9, 0.95]), "fall strictly"),
        (lambda: VPDiscrete([0.9, 0.0]), "zero terminal SNR"),
        (lambda: VPDiscrete.from_betas(schedule="cubic"), "'scaled_linear'"),
        (lambda: VPDiscrete.from_betas(beta_start=2.0), "between 0 and 1"),
        (lambda: named("vp-liner"), "did you mean 'vp-linear'"),
        (lambda: named("flow:shfit=3"), "did you mean 'shift'"),
        (lambda: named("flow:3"), "name:key=value"),
        (lambda: from_dict({"shift": 1.0}), "'name'"),
    ],
)
def test_mistakes_are_answered(make, words):
    with pytest.raises(InputError, match=words):
        make()


def test_processes_are_reached_from_the_package():
    assert fs.processes.VPLinear is VPLinear
