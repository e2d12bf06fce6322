"""One model, scheduler, handle or pipeline used by eight threads: the results of one, or a refusal that says why."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support import tiny_pipelines as tiny
from support.generating import counted, counted_unet

import fewstep as fs
from fewstep.errors import InputError
from fewstep.integrations.diffusers import FewStepScheduler

THREADS = 8


def together(act: Callable[[int], Any]) -> list[Any]:
    """Return what ``act(i)`` returns, or the refusal that it raises, for eight threads that start as one."""
    barrier, found = threading.Barrier(THREADS, timeout=60), [None] * THREADS

    def run(i: int) -> None:
        barrier.wait()
        try:
            found[i] = act(i)
        except BaseException as error:
            found[i] = error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def refused(found: Any) -> bool:
    """Whether it is a refusal in words that name threads."""
    return isinstance(found, InputError) and "thread" in str(found)


@pytest.fixture(autouse=True)
def one_thread():
    """Torch's own threads would only get in the way."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("window", [None, (0.2, 10.0)], ids=["constant", "by noise level"])
def test_a_tuned_network_samples_as_for_one(window):
    """Each thread has its own grid, so that their noise levels differ at every moment."""
    model = counted_unet()
    grids = [fs.grids.karras(model.process, 3 + i) for i in range(THREADS)]

    def act(i: int) -> torch.Tensor:
        return fs.sample(model, fs.UniPC(2), grids[i], seeds=[i, i + 1])

    with fs.skip.tuned(model, 0.5, sigma_window=window):
        expected = [act(i) for i in range(THREADS)]
        for _ in range(2):
            assert all(map(torch.equal, together(act), expected))
    assert not torch.equal(act(0), expected[0])


def run(scheduler: FewStepScheduler, steps: int) -> torch.Tensor:
    x = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(steps))
    scheduler.set_timesteps(steps)
    for t in scheduler.timesteps:
        x = scheduler.step(0.3 * scheduler.scale_model_input(x, t).tanh(), t, x).prev_sample
    return x


@pytest.mark.parametrize("settings", [{}, {"solver": "sa"}, {"sigma_data": 0.5, "prediction_type": "epsilon"}])
def test_a_scheduler_refuses_a_second_thread_or_is_right(settings):
    expected = [run(FewStepScheduler(**settings), 3 + i) for i in range(THREADS)]
    scheduler = FewStepScheduler(**settings)
    for _ in range(3):
        found = together(lambda i: run(scheduler, 3 + i))
        right = [not refused(one) and torch.equal(one, whole) for one, whole in zip(found, expected, strict=True)]
        assert any(right)  # The last that began.
        assert all(fine or refused(one) for fine, one in zip(right, found, strict=True)), found
    assert torch.equal(run(scheduler, 3), expected[0])


def test_a_run_is_not_taken_over_in_its_middle():
    """However the two are interleaved, the one that began last is right, and the other is told."""
    scheduler, one, two = FewStepScheduler(), torch.ones(1, 3, 4, 4), torch.zeros(1, 3, 4, 4)
    scheduler.set_timesteps(4)
    first = scheduler.timesteps
    scheduler.step(one, first[0], one)
    found = []

    def other() -> None:
        scheduler.set_timesteps(2)
        found.append(scheduler.step(two, scheduler.timesteps[0], two).prev_sample)

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    with pytest.raises(InputError, match="two threads need a pipeline each"):
        scheduler.step(one, first[1], one)
    fresh = FewStepScheduler()
    fresh.set_timesteps(2)
    assert torch.equal(found[0], fresh.step(two, fresh.timesteps[0], two).prev_sample)


def test_an_enabled_pipeline_refuses_a_second_thread_or_is_right():
    pipe, call = tiny.stable_diffusion()
    fs.enable(pipe, 3, grid="karras", skip=0.8)
    expected = tiny.run(pipe, call, steps=3)
    found = together(lambda i: tiny.run(pipe, call, steps=3))
    assert all(refused(one) or torch.equal(one, expected) for one in found), found
    assert torch.equal(tiny.run(pipe, call, steps=3), expected)


def test_a_pipeline_as_a_model_is_called_by_one_at_a_time():
    pipe, call = tiny.stable_diffusion()
    model = fs.models.from_pipeline(pipe, **{name: call[name] for name in call if name not in ("latents", "output_type")})  # fmt: skip  # noqa: E501
    grids = [fs.grids.karras(model.process, 2 + i % 3) for i in range(THREADS)]

    def act(i: int) -> torch.Tensor:
        return fs.sample(model, fs.UniPC(2), grids[i], seeds=[i])

    expected = [act(i) for i in range(THREADS)]
    assert all(map(torch.equal, together(act), expected))


def test_grids_and_plans_are_those_of_one():
    process = fs.processes.VPLinear()

    def act(i: int) -> list[torch.Tensor]:
        scheduler = FewStepScheduler(grid="optimized", sigma_min=None)
        scheduler.set_timesteps(4)
        grid = fs.grids.optimized(process, fs.UniPC(2), 4)
        return [grid.times, fs.UniPC(2).plan(grid).history_weights, scheduler.grid.times]

    expected = act(0)
    for made in together(act):
        assert all(map(torch.equal, made, expected)), made


def test_calibrations_of_one_model_are_those_of_one():
    model = counted()
    grid = fs.grids.uniform_logsnr(model.process, 2)

    def act(i: int) -> fs.Recipe:
        made = fs.calibrate(model, fs.UniPC(2), grid, num=8, reference_steps=8, analytic=0, batch_size=3)
        return dataclasses.replace(made, report=dataclasses.replace(made.report, seconds=0.0))

    expected = act(0).to_json()
    assert [recipe if isinstance(recipe, BaseException) else recipe.to_json() for recipe in together(act)] == [expected] * THREADS  # fmt: skip  # noqa: E501
