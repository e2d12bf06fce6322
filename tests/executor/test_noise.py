"""Noise: streams of a seed, independent of the batch and of each other."""

import numpy as np
import torch

from fewstep.executor import NoiseSource, checked_seeds

CPU = torch.device("cpu")


def drawn(shape: tuple[int, ...], **settings: object) -> torch.Tensor:
    out = torch.empty(shape)
    NoiseSource(shape[0], CPU, **settings).fill(out)
    return out


def test_the_initial_stream_is_the_plain_generator():
    wanted = torch.randn(3, 4, generator=torch.Generator().manual_seed(7))
    assert torch.equal(drawn((1, 3, 4), seeds=[7])[0], wanted)


def test_streams_of_one_seed_are_unrelated():
    one, two = (drawn((1, 20_000), seeds=[7], stream=stream)[0] for stream in (0, 1))
    assert abs(float(torch.corrcoef(torch.stack([one, two]))[0, 1])) < 0.03


def test_neighbouring_seeds_are_unrelated():
    one, two = drawn((2, 20_000), seeds=[7, 8], stream=1)
    assert abs(float(torch.corrcoef(torch.stack([one, two]))[0, 1])) < 0.03


def test_a_generator_draws_the_batch_and_a_list_each_sample():
    whole = drawn((3, 40), generator=torch.Generator().manual_seed(1))
    assert torch.equal(whole, torch.randn(3, 40, generator=torch.Generator().manual_seed(1)))
    each = drawn((3, 40), generator=[torch.Generator().manual_seed(s) for s in (1, 2, 3)])
    assert torch.equal(each[2], torch.randn(40, generator=torch.Generator().manual_seed(3)))


def test_seeds_are_any_whole_numbers():
    for seeds in ([np.int64(3), 2**63], torch.tensor([3, 4]), [torch.tensor(3), 2**64 - 1], np.array([3, 4]), range(2)):
        assert checked_seeds(seeds, 2) == [int(seed) for seed in seeds]
        assert bool(torch.isfinite(drawn((2, 3), seeds=seeds, stream=1)).all())


def test_seeds_from_two_to_the_32_on_are_others_than_their_lower_half():
    for stream in (0, 1):
        noises = [drawn((1, 20_000), seeds=[seed], stream=stream)[0] for seed in (7, 7 + 2**32, 7 + 2**33)]
        correlation = torch.corrcoef(torch.stack(noises)) - torch.eye(3)
        assert float(correlation.abs().max()) < 0.03
    # The streams of a large seed are none of a small one's.
    wide, steps = drawn((1, 20_000), seeds=[7 + 2**32])[0], drawn((1, 20_000), seeds=[7], stream=1)[0]
    assert abs(float(torch.corrcoef(torch.stack([wide, steps]))[0, 1])) < 0.03


def test_a_stage_draws_other_noise_than_the_one_before():
    levels = [None, 0.5, 0.25]
    noises = torch.stack([drawn((1, 20_000), seeds=[7], stream=1, level=level)[0] for level in levels])
    assert float((torch.corrcoef(noises) - torch.eye(3)).abs().max()) < 0.03
    again = drawn((2, 20_000), seeds=[3, 7], stream=1, level=0.5 * (1 + 1e-12))
    assert torch.equal(again[1], noises[1])
