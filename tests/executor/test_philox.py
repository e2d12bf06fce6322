"""Noise by counter: Philox's published words, the normal distribution, and numbers that depend on nothing else."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from support.waiting import each_device, needs_gpu, without_waiting

from fewstep.executor import NoiseSource
from fewstep.executor.philox import ELSEWHERE, ON_CPU, RUN, Philox, _transform, philox, words_on_device

CPU = torch.device("cpu")
KEYS = np.random.default_rng(0).integers(0, 2**64, (5, 2), dtype=np.uint64)
PUBLISHED = [
    ("0 0 0 0", "0 0", "16554d9eca36314c db20fe9d672d0fdc d7e772cee186176b 7e68b68aec7ba23b"),
    (
        " ".join(["f" * 16] * 4),
        " ".join(["f" * 16] * 2),
        "87b092c3013fe90b 438c3c67be8d0224 9cc7d7c69cd777b6 a09caebf594f0ba0",
    ),
    (
        "243f6a8885a308d3 13198a2e03707344 a4093822299f31d0 082efa98ec4e6c89",
        "452821e638d01377 be5466cf34e90c6c",
        "a528f45403e61d95 38c72dbd566e9788 a5a1610e72fd18b5 57bd43b5e52b7fe6",
    ),
]
"""Counter, key and words of Philox4x64-10 in Random123's kat_vectors."""


def as_tensors(words: str, device="cpu") -> tuple[torch.Tensor, ...]:
    made = np.array([int(word, 16) for word in words.split()], np.uint64).view(np.int64)
    return tuple(torch.from_numpy(made).to(device)[:, None])


@each_device
@pytest.mark.parametrize(("counter", "key", "words"), PUBLISHED, ids=["zeros", "ones", "pi"])
def test_the_words_are_the_published_ones(counter, key, words, device):
    made = philox(as_tensors(counter, device), as_tensors(key, device))
    assert torch.equal(torch.stack(made).cpu(), torch.stack(as_tensors(words)))


@each_device
def test_words_are_numpys_on_every_device(device):
    """Bit for bit: those of a GPU's kernel, and those by torch's operations."""
    source = Philox(KEYS, CPU)
    source.draws = 2**33 + 1
    keys = torch.from_numpy(KEYS.view(np.int64)).to(device)
    made = words_on_device(keys, source.draws, 3, 128)
    assert torch.equal(made.cpu(), source.words(slice(None), 128, draws=3))


@needs_gpu
def test_a_gpu_has_one_kernel_for_the_words():
    from fewstep.executor.philox import _kernel

    one, zero = torch.ones(1, dtype=torch.int64, device="cuda"), torch.zeros(1, dtype=torch.int64, device="cuda")
    made = torch.cat(_kernel()(one, zero, zero, zero))
    assert torch.equal(made, torch.cat(philox((one, zero, zero, zero), (zero, zero))))


def draws(shape, number=1, keys=KEYS, device=CPU, dtype=torch.float32):
    source, out = Philox(keys[: shape[0]], device), torch.empty(shape, dtype=dtype, device=device)
    made = []
    for _ in range(number):
        source.fill(out)
        made.append(out.clone())
    return torch.stack(made)


def test_numbers_are_normal():
    """Kolmogorov and Smirnov's distance and the first four moments, within five standard errors."""
    made = draws((5, 200_000)).double().flatten()
    n = len(made)
    assert scipy.stats.kstest(made.numpy(), "norm").pvalue > 1e-6
    errors = [(1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0)]  # power, moment, variance of the power
    for power, moment, variance in errors:
        assert abs(float((made**power).mean()) - moment) < 5 * math.sqrt(variance / n)


def test_seeds_draws_streams_levels_and_places_are_independent():
    n = 100_000
    rows = list(draws((3, n), number=2).flatten(0, 1))
    for settings in ({"stream": 1}, {"stream": 2}, {"stream": 1, "level": 0.5}, {"stream": 1, "level": 0.25}):
        out = torch.empty(2, n)
        NoiseSource(2, CPU, seeds=[7, 7 + 2**32], **settings).fill(out)
        rows += list(out)
    rows += [
        rows[0].roll(RUN),
        rows[0].roll(2 * RUN),
        rows[0].roll(1),
    ]  # the other of a pair, the next run, a neighbour
    for power in (1, 2):
        apart = torch.corrcoef(torch.stack(rows).double() ** power) - torch.eye(len(rows))
        assert float(apart.abs().max()) < 5 / math.sqrt(n)


@pytest.mark.parametrize("shape", [(5,), (5, 3, 9, 11), (5, 3, 128, 100), (5, 2 * ON_CPU + 1)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_numbers_depend_on_key_draw_and_place_alone(shape, dtype):
    whole = draws(shape, 3, dtype=dtype)
    for chosen in ([0], [3, 1], [4, 2, 0]):
        assert torch.equal(draws((len(chosen), *shape[1:]), 3, KEYS[chosen], dtype=dtype), whole[:, chosen])
    flat = whole.reshape(3, 5, -1)
    size = flat.shape[-1]
    for fewer in {1, size // 3 + 1, size}:
        assert torch.equal(draws((5, fewer), 3, dtype=dtype), flat[..., :fewer])


def test_another_shape_or_type_in_between_changes_nothing():
    expected = draws((5, 40), 3)
    source, out = Philox(KEYS, CPU), torch.empty(5, 40)
    source.fill(out)
    source.fill(torch.empty(5, 2, 30, dtype=torch.float64))
    source.fill(out)
    assert torch.equal(out, expected[2])


def test_float32_and_float64_differ_by_rounding():
    """u has three roundings, −2·log u as many of its size: at r = 0 √(8·2⁻²⁴) is the most that is left of them."""
    one, other = draws((5, 50_000)).double(), draws((5, 50_000), dtype=torch.float64)
    assert float((one - other).abs().max()) < math.sqrt(8 * 2**-24)
    assert float((one - other).abs().mean()) < 8 * 2**-24


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_extremes_are_finite(dtype):
    halves = torch.tensor([0, -(2**31), 2**31 - 1, -1], dtype=torch.int32).repeat(RUN // 4).expand(1, 2, RUN)
    out = torch.empty(1, 2, RUN, dtype=dtype)
    _transform(halves, out)
    assert bool(torch.isfinite(out).all())
    assert float(out.abs().max()) == pytest.approx(math.sqrt(64 * math.log(2)), rel=1e-6)


@needs_gpu
@pytest.mark.parametrize("shape", [(5, 3, 9, 11), (5, 2 * ELSEWHERE // 5)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_gpu_draws_what_the_cpu_draws(shape, dtype):
    one, other = draws(shape, 3, device=torch.device("cuda"), dtype=dtype).cpu(), draws(shape, 3, dtype=dtype)
    eps = torch.finfo(dtype).eps
    assert float((one - other).abs().max()) < math.sqrt(8 * eps)
    assert float((one - other).abs().mean()) < 8 * eps


@needs_gpu
def test_a_gpu_does_not_wait_for_its_noise():
    source, out = Philox(KEYS, torch.device("cuda")), torch.empty(5, 3, 16, 16, device="cuda")
    source.fill(out)
    with without_waiting(out.device):
        for _ in range(20):
            source.fill(out)
