"""Every public name, every argument, every kind of bad value: a result or an ``InputError``, soon, and nothing else.

Names are found by walking ``fewstep``; a new one is in it, and so is each of its arguments. What an argument is given
otherwise is read off its name in ``GOOD``.
"""

from __future__ import annotations

import functools
import inspect
import json
import signal
import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from fractions import Fraction
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

import fewstep as fs
from fewstep.errors import FewstepError
from fewstep.integrations.diffusers import FewStepScheduler
from fewstep.models.model import Model

LIMIT = 10
"""Seconds that a call may take."""
PROCESS = fs.processes.VPLinear()
GRID = fs.grids.karras(PROCESS, 3, end="zero")
SOLVER = fs.UniPC(2)
PLAN = SOLVER.plan(GRID)
X = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))


class Net(torch.nn.Module):
    def forward(self, x, t, cond=None, **keywords):
        return 0.3 * x


MODEL = fs.Denoiser(Net(), PROCESS, shape=(1, 8, 8), num_classes=3)


class Constant(fs.skip_analysis.Objective):
    """The same for every setting."""

    def rows(self, seeds, keep=None):
        return torch.ones(len(seeds))

    def value(self, rows):
        return float(rows.mean())


def real_data():
    return fs.skip_analysis.RealData(fs.Denoiser(skips(), PROCESS, "x0", shape=(1, 8, 8)), X)


def skips():
    """A network with skip connections."""
    kinds = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    return diffusers.UNet2DModel(
        8, 1, 1, layers_per_block=1, block_out_channels=(8, 8), norm_num_groups=4, add_attention=False, **kinds
    ).eval()


def pipeline():
    return diffusers.DDPMPipeline(skips(), diffusers.DDPMScheduler())


class Iterating:
    """An iterator that begins anew whenever it is asked for: one of a list would be used up by the first call."""

    def __iter__(self) -> Iterating:
        self.left = iter([1, 2])
        return self

    def __next__(self) -> int:
        return next(self.left)


LISTS = [[], [1], [float("nan")], ["x"], [None], [[1], [2, 3]], [10**400], range(3), Iterating(), np.array([1.5]), {1}]
TENSORS = [torch.tensor(float("nan")), torch.empty(0), torch.empty(2, device="meta"), torch.tensor([1 + 1j]), torch.ones(3, 2)]  # fmt: skip  # noqa: E501
NUMBERS = [0, -1, 1.5, 2.0, float("nan"), float("inf"), 10**9, 10**30, 10**400, True, 1e-300, np.int64(2), np.float32(2), torch.tensor(2), Fraction(2), Decimal(2), 2j]  # fmt: skip  # noqa: E501
WORDS = ["", "x", "2", "²", "a\nb", "\x1b[2J", "\ud800", "[/b]", "karras:rho=x", "none:", b"x", "a" * 10_000]
THINGS = [None, {}, {"a": 1}, object(), lambda *_: None, int, PROCESS, GRID, SOLVER, PLAN, MODEL]
BAD = [*LISTS, *TENSORS, *NUMBERS, *WORDS, *THINGS]

GOOD: dict[str, Callable[[], Any]] = {
    "batch": lambda: 8,
    "beta_max": lambda: 20.0,
    "alphas_cumprod": lambda: torch.linspace(0.99, 0.01, 10),
    "alpha": lambda: PROCESS.alpha(0.5),
    "bottoms": lambda: [0.9, 0.8, 0.7],
    "calls": lambda: 8,
    "cond": lambda: None,
    "conditional": lambda: True,
    "count": lambda: 3,
    "denoiser": lambda: MODEL,
    "data": lambda: PROCESS.to_dict(),
    "evaluate": lambda: PLAN.evaluate,
    "grid": lambda: GRID,
    "guide": lambda: MODEL,
    "guidance_scale": lambda: 2.0,
    "half_logsnr": lambda: 0.0,
    "history_weights": lambda: PLAN.history_weights,
    "high": lambda: 1.0,
    "inner": lambda: MODEL,
    "interval": lambda: PLAN.interval,
    "kind": lambda: "grid",
    "known": lambda: ["a", "b"],
    "log_prob": lambda: lambda x, t, cond: -0.5 * (x**2).sum(tuple(range(1, x.ndim))),
    "low": lambda: 0.1,
    "make": lambda: fs.grids.karras,
    "message": lambda: "x",
    "module": lambda: "conv",
    "orders": lambda: [1] * GRID.steps,
    "path": lambda: "no-such-file.json",
    "name": lambda: "x",
    "network": Net,
    "noise_scale": lambda: PLAN.noise_scale,
    "null_cond": lambda: 0,
    "pipe": lambda: None,
    "plan": lambda: PLAN,
    "process": lambda: PROCESS,
    "recipes": lambda: (fs.Recipe(PLAN),),
    "report": lambda: None,
    "seeds": lambda: range(8),
    "shape": lambda: (1, 8, 8),
    "sigma": lambda: 1.0,
    "solver": lambda: SOLVER,
    "spec": lambda: "karras",
    "state_weight": lambda: PLAN.state_weight,
    "steps": lambda: 3,
    "t": lambda: torch.tensor(0.5),
    "tau": lambda: 1.0,
    "text": lambda: PLAN.to_json(),
    "times": lambda: GRID.times,
    "u": lambda: 0.5,
    "value": lambda: 1.0,
    "variances": lambda: [1.0, 0.5],
    "x": lambda: X.clone(),
    "x_T": lambda: X.clone(),
    "x_t": lambda: X.clone(),
}
"""A good value of each required argument, by name."""
OTHERWISE: dict[str, Callable[[], Any]] = {
    "DistanceToImages.extractor": lambda: fs.metrics.features("fashion-mnist"),
    "DistanceToImages.images": lambda: [torch.zeros(4, 1, 28, 28)],
    "Extractor.name": lambda: "x",
    "Extractor.network": lambda: lambda images: images.flatten(1),
    "Frechet.features": lambda: lambda images: images.flatten(1),
    "Frechet.model": lambda: Model(MODEL),
    "FeatureLoss.data": lambda: real_data(),
    "FeatureLoss.features": lambda: lambda images: images.flatten(1),
    "complexity.data": lambda: real_data(),
    "denoising_losses.data": lambda: real_data(),
    "diagnose.data": lambda: real_data(),
    "diagnose.profile": lambda: fs.skip.Profile(0.8),
    "features.name": lambda: "fashion-mnist",
    "frechet_distance.one": lambda: X[:, 0, 0],
    "frechet_distance.other": lambda: X[:, 0, 0],
    "from_uint8.images": lambda: np.zeros((2, 4, 4, 3), np.uint8),
    "get_sigmas.n": lambda: 4,
    "golden_section.function": lambda: lambda x: x**2,
    "golden_section.points": lambda: 4,
    "golden_section.within": lambda: (0.0, 1.0),
    "invert.data": lambda: real_data(),
    "levels": lambda: (0.5, 1.0),
    "load.name": lambda: "fashion-mnist",
    "model.name": lambda: "fashion-mnist",
    "moments_of.features": lambda: X[:, 0, 0],
    "noise_statistics.noise": lambda: X,
    "norm_ratios.data": lambda: real_data(),
    "reference": lambda: fs.metrics.moments_of(torch.randn(300, 64, generator=torch.Generator().manual_seed(0))),
    "scorer": lambda: lambda images: images.flatten(1).mean(1),
    "word": lambda: "x",
    "run.model": lambda: lambda x, sigma: 0.3 * x,
    "run.plan": lambda: fs.UniPC(2).plan(fs.grids.karras(fs.processes.EDM(), 3)),
    "in_sigma.plan": lambda: PLAN,
    "sample.model": lambda: lambda x, sigma: 0.3 * x,
    "sample.sigmas": lambda: torch.tensor([10.0, 1.0, 0.1, 0.0]),
    "planned.sigmas": lambda: torch.tensor([10.0, 1.0, 0.1, 0.0]),
    "planned.process": lambda: fs.processes.EDM(),
    "search.denoiser": lambda: fs.Denoiser(skips(), PROCESS, "x0", shape=(1, 8, 8)),
    "search.objective": lambda: Constant(),
    "to_uint8.images": lambda: X,
    "RealData.x_0": lambda: X,
    "update.batch": lambda: X[:, 0, 0],
    "__call__.images": lambda: X,
    "set_timesteps.num_inference_steps": lambda: 4,
    "model_output": lambda: X.clone(),
    "timestep": lambda: 999.0,
    "timesteps": lambda: torch.tensor([500]),
    "original_samples": lambda: X,
    "noise": lambda: X,
    "begin_index": lambda: 1,
    "step.sample": lambda: X.clone(),
    "scale_model_input.sample": lambda: X.clone(),
    "hash": lambda: "0",
    "pipe": lambda: pipeline(),
}
"""Good values by function and argument, where ``GOOD`` has another one of that name or none."""
QUICK = {"num": 8, "reference_steps": 6, "objective": "local"}
"""What keeps a call short, where it is an argument."""
HEAVY = (
    "calibrate",
    "optimized",
    "invert",
    "sample",
    "execute",
    "complexity",
    "denoising_losses",
    "diagnose",
    "search",
)
"""Calls whose arguments each get the numbers and a part of the other bad values, which together cover all."""
ELSEWHERE = ("fewstep.integrations.comfyui", "fewstep.errors")
"""What needs ComfyUI, and exceptions."""
THEIRS = ("callback", "extra_args", "function", "keep", "model", "progress")
"""Functions of other people, and what is handed to them: what they raise is theirs."""
LEFT_OUT = {"fewstep.grids.registered", "fewstep.tune", "fewstep.tuning.tune"}
"""A decorator, and what runs for seconds (tests/tuning has its mistakes)."""
HANDED_OUT = {
    "fewstep.tau.GridPoint",
    "fewstep.skip.Skip",
    "fewstep.skip.Tuned",
    "fewstep.solvers.Schedule",
    *(f"fewstep.skip_analysis.{name}" for name in ("Change", "Check", "Diagnosis", "Losses", "NoiseStatistics",
      "NormRatios", "SearchPoint", "SearchResult")),
    "fewstep.models.PipelineDenoiser",
    *(f"fewstep.tuning.{name}" for name in ("Settings", "Tried", "Tuning", "Value", "Verdict")),
    *(f"fewstep.integrations.diffusers.{name}" for name in ("Diagnosis", "SchedulerMixin", "Summary")),
}  # fmt: skip
"""Classes whose objects fewstep makes."""
HOOKS = {"correct", "of", "predict", "schedule", "table", "save", "load", "mro"}
"""What a subclass fills in and fewstep calls, and what files are tested for elsewhere."""


def walk(name: str, value: Any, found: dict[str, Any]) -> dict[str, Any]:
    """Return all public callables by name."""
    if isinstance(value, types.ModuleType):
        for inner in getattr(value, "__all__", ()):
            if not f"{name}.{inner}".startswith(ELSEWHERE):
                walk(f"{name}.{inner}", getattr(value, inner), found)
    elif callable(value) and not any(value is held for held in found.values()) and name not in LEFT_OUT | HANDED_OUT:
        found[name] = value
    return found


PUBLIC = walk("fewstep", fs, {})


@contextmanager
def soon() -> Iterator[None]:
    """Fail what takes longer than ``LIMIT``."""

    def stop(*_: Any) -> None:
        raise TimeoutError(f"more than {LIMIT} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(LIMIT)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def arguments(function: Any) -> dict[str, inspect.Parameter]:
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {p.name: p for p in inspect.signature(function).parameters.values() if p.kind in kinds}


def good_call(name: str, function: Any) -> dict[str, Any]:
    """Return keywords with which the function does what it should."""
    needed = [p.name for p in arguments(function).values() if p.default is inspect.Parameter.empty]
    known = {**GOOD, **{key: value for key, value in OTHERWISE.items() if "." not in key}}
    leaf = name.rpartition(".")[2]
    known |= {key.partition(".")[2]: value for key, value in OTHERWISE.items() if key.startswith(f"{leaf}.")}
    missing = [one for one in needed if one not in known]
    assert not missing, f"{name} is new: give a good value of {missing} in GOOD"
    made = {one: known[one]() for one in needed}
    return made | {one: value for one, value in QUICK.items() if one in arguments(function) and one not in made}


KINDS = (
    fs.Solver, fs.DataPredictor, fs.processes.Process, fs.TimeGrid, fs.Plan, fs.metrics.Moments, fs.metrics.Extractor,
    FewStepScheduler,
)  # fmt: skip


def fresh_scheduler(key: str) -> Callable[..., Any]:
    """Return a method of a scheduler that has not been used."""

    @functools.wraps(getattr(FewStepScheduler, key))
    def method(**keywords: Any) -> Any:
        scheduler = FewStepScheduler()
        scheduler.set_timesteps(4)
        return getattr(scheduler, key)(**keywords)

    signature = inspect.signature(getattr(FewStepScheduler, key))
    method.__signature__ = signature.replace(parameters=list(signature.parameters.values())[1:])
    return method


def methods(name: str, kind: type) -> Iterator[tuple[str, Any]]:
    """Yield the public methods of an object of a public class."""
    if inspect.isabstract(kind) or not issubclass(kind, KINDS):
        return
    if kind is FewStepScheduler:
        for key in ("set_timesteps", "step", "add_noise", "scale_model_input", "set_begin_index"):
            yield f"{name}().{key}", fresh_scheduler(key)
        return
    made = kind(**good_call(name, kind))
    if isinstance(made, torch.nn.Module):
        return
    for key, _ in inspect.getmembers(kind, callable):
        if (not key.startswith("_") or key == "__call__") and key not in HOOKS:
            if callable(getattr(made, key)) and arguments(getattr(made, key)):
                yield f"{name}().{key}", getattr(made, key)


def check_written(made: Any) -> None:
    """Write as JSON what can be written: numbers of other types than Python's were taken as numbers."""
    if isinstance(made, type):
        return
    if hasattr(made, "to_json"):
        made.to_json()
    elif hasattr(made, "to_dict"):
        json.dumps(made.to_dict(), allow_nan=False)


def attempt(name: str, function: Any, keywords: dict[str, Any], what: str) -> str | None:
    """Return what is wrong with the answer of a call, None if it is a result or an error on purpose."""
    try:
        with soon(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = function(**keywords)
            if hasattr(made, "set_timesteps"):
                made.set_timesteps(4)  # What a scheduler makes of its settings.
            check_written(made)
    except FewstepError as error:
        if "\n" in str(error) or len(str(error)) > 1000 or not str(error):
            return f"{what}: the message is {str(error)[:200]!r}"
    except Exception as error:
        return f"{what}: {type(error).__name__}: {str(error)[:150]}"
    return None


def shown(value: Any) -> str:
    try:
        return repr(value)[:60].replace("\n", " ")
    except ValueError:
        return "10**400"


def contract(name: str, function: Any) -> list[str]:
    """Return everything that is wrong with the answers to bad values, one argument at a time."""
    wrong = [attempt(name, function, good_call(name, function), f"{name}: the good call")]
    for place, argument in enumerate(arguments(function)):
        values = BAD
        if name.rpartition(".")[2] in HEAVY:
            others = [value for value in BAD if not any(value is number for number in NUMBERS)]
            values = [*NUMBERS, *others[place % 4 :: 4]]
        for value in values:
            if argument in THEIRS and (callable(value) or isinstance(value, dict)):
                continue
            keywords = good_call(name, function) | {argument: value}
            wrong.append(attempt(name, function, keywords, f"{name}({argument}={shown(value)})"))
    return [one for one in wrong if one is not None]


@pytest.mark.parametrize("name", PUBLIC)
def test_every_argument_of_every_public_name(name):
    function = PUBLIC[name]
    if inspect.isclass(function) and inspect.isabstract(function):
        pytest.skip("an abstract class takes nothing")
    wrong = contract(name, function)
    if inspect.isclass(function):
        for method_name, method in methods(name, function):
            wrong += contract(method_name, method)
    assert not wrong, f"{len(wrong)} of {name}:\n" + "\n".join(wrong[:40])


def test_the_walk_finds_what_there_is():
    """Solvers, grids and processes are found by themselves, each by its class or function."""
    found = set(PUBLIC.values())
    assert {fs.sample, fs.execute, fs.calibrate, fs.Denoiser, fs.TimeGrid, fs.Plan} <= found
    assert set(fs.solvers.NAMES.values()) <= found if hasattr(fs.solvers, "NAMES") else True
    assert len(found) > 30
