"""The public ``calibrate``: a model, a solver and a grid in, a plan fitted to the model out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, overload

import torch
from torch import Tensor

from fewstep.calibration.base_plan import base_plan
from fewstep.calibration.conditions import conditions_for
from fewstep.calibration.fitting import Fitting, Progress
from fewstep.calibration.held_out import HeldOut
from fewstep.calibration.interior_times import resampled
from fewstep.calibration.least_squares import Loss
from fewstep.calibration.network import CountedNetwork, checked_predictor
from fewstep.calibration.reference import Reference, reference_grid
from fewstep.calibration.scratch import scratch
from fewstep.checks import as_integer, as_word, check_callback, flag, shown, whole
from fewstep.denoiser import DataPredictor, network_device
from fewstep.errors import InputError
from fewstep.executor import checked_seeds
from fewstep.fingerprint import described
from fewstep.recipe import Recipe, RecipeBook, Report
from fewstep.sampling import initial_state
from fewstep.solvers import Solver
from fewstep.time_grid import TimeGrid

__all__ = ["calibrate"]


SEEDS_FROM = 1_000_000_000
"""The first default seed: far from those that people sample with."""
HELD_OUT = 4
"""One in ``HELD_OUT`` noises is held out for the report."""
MOST = 1_000_000
LEAST = 8
"""The least number of noises: two are held out, and six are left for the four folds of the cross-validation."""
MOST_ANALYTIC = 3
"""The most predictions that "auto" replaces by formulas."""


@overload
def calibrate(*args: Any, steps: None = None, **settings: Any) -> Recipe: ...
@overload
def calibrate(*args: Any, steps: Iterable[int], **settings: Any) -> RecipeBook: ...
def calibrate(  # type: ignore[misc]  # The overloads tell what is returned, this what is taken.
    denoiser: DataPredictor | Callable[..., Tensor],
    solver: Solver,
    grid: TimeGrid,
    x_T: Tensor | None = None,
    *,
    steps: Iterable[int] | None = None,
    num: int = 64,
    seeds: Sequence[int] | None = None,
    cond: Any = None,
    history: int = 4,
    analytic: int | Literal["auto"] = "auto",
    loss: Loss | Literal["auto"] = "auto",
    reference_steps: int = 100,
    search: bool = False,
    objective: Literal["final", "local"] = "final",
    features: Callable[[Tensor], Tensor] | None = None,
    budget: int | None = None,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> Recipe | RecipeBook:
    r"""Return the solver's plan with its coefficients fitted to the model, by least squares over forward calls.

    For ``num`` noises the model's solution is computed once, in ``reference_steps`` calls. Then each row of the plan
    in turn is fitted so that the next state, a·x + Σ_j b_j·H_j over the state and the last ``history`` predictions, is
    the reference's at that time, on the trajectory that the rows before it make: later rows mend what earlier ones
    left. With ``objective="final"`` a few Gauss-Newton rounds then fit all rows together to the final samples; their
    derivatives are difference quotients, which are forward calls too. With ``search`` the times between the grid's
    ends are searched first, every trial with its rows fitted.

    Where noise is high, predictions can be formulas of the state in place of network calls (``analytic``): a plan then
    has more rows than calls.

    A quarter of the noises is held out. The fit is returned only if it is better on them beyond doubt: the lower end of
    the gain's 95 % interval is above 1. Where the interval contains 1, three times as many noises more are held out.
    Otherwise the solver's plan is returned. ``objective="local"`` without a search and analytic predictions costs
    num·(reference_steps + N) calls, and 2·N for each held-out noise.

    States, predictions and the reference lie in temporary files (``TMPDIR``), so memory does not grow with ``num``.
    Fits start from the solver's rows, ridges are chosen by cross-validation, sums are made in float64 noise by
    noise: the result does not depend on ``batch_size``, up to the network's rounding.

    Source: the row-by-row fit in closed form is fewstep's. S4S (arXiv 2502.17423) and LD3 (arXiv 2405.15506) learn
    coefficients and times with gradients through the network.

    Args:
        denoiser: an ``fs.Denoiser`` with its guidance, or a callable (x_t, t) → x0.
        solver: deterministic, with one call a step; fits start from its rows.
        grid: the times, N steps for N network calls; with ``search``, its ends and number of steps stay. For other
            numbers of steps, and with analytic predictions, its λ are interpolated.
        x_T: noises [num, …] at the grid's first time, in place of ``seeds``: for a callable, whose shape is not known.
            A denoiser that does not know its device is called on theirs.
        steps: numbers of network calls, such as range(4, 13): one reference serves all, and a book of recipes is made.
        num: how many noises, at least 8.
        seeds: of the noises; the default is ``num`` numbers from 10⁹ on, so that samples are not drawn from them.
        cond: what to calibrate on. None: every class in turn for a model with classes, no condition for others;
            "none": no condition; one class for all; or one condition for each noise: a tensor [num, …], or keywords
            with such tensors, nested ones too, such as the embeddings of prompts; a tensor [1, …] of them is for all.
        history: predictions whose coefficients are fitted in a row; older ones keep the solver's.
        analytic: how many first predictions are formulas fitted to the model; "auto" tries 0 to 3.
        loss: "square", the mean square of the noises' errors; "root", the square of the mean of their roots, in which a
            few noises that end in another picture count for little; "auto" fits final samples with both and keeps the
            one whose mean and median on the held-out noises are lower, and rows alone with "square".
        reference_steps: calls of the reference solution, well above the grid's.
        search: whether the times between the ends are searched.
        objective: "final", or "local" for the row-by-row fit alone.
        features: samples [n, …] → [n, …]: the space in which "final" compares samples, on the CPU; None for the
            samples themselves.
        budget: with ``search``, the network calls after which no new trial begins; None for 5·num·reference_steps.
        batch_size: samples in a network call.
        progress: called as progress(stage, calls so far, best error of the stage or None).

    Returns:
        The recipe; with ``steps``, a book of recipes.

    Raises:
        InputError: if the solver adds noise, on this grid or on one that ``search`` may move to, or calls the network
            more than once a step, there are too few noises for the fit, or settings, shapes, seeds or conditions do
            not fit.
        NonFiniteStateError: if the network returns a value that is not finite.
    """
    base_plan(solver, grid)
    numbers = [grid.steps] if steps is None else _numbers(steps)
    checked_predictor(denoiser, grid.process)
    _check_settings(objective, features, progress)
    num, history = whole("num", num, LEAST, MOST), whole("history", history)
    batch_size, search = whole("batch_size", batch_size, 1, MOST), flag("search", search)
    reference_steps = whole("reference_steps", reference_steps, 2 * max(numbers), 10_000)
    budget = None if budget is None else whole("budget", budget, 0)
    counts = _counts(analytic)
    as_word("loss", loss, ("auto", "square", "root"))
    grids = [resampled(grid, number) for number in numbers]
    fine = reference_grid(max(grids, key=lambda one: one.steps), reference_steps)
    if search:
        base_plan(solver, fine)  # Where times may move to.
    noises = _noises(denoiser, grid, x_T, seeds, num, batch_size)
    _check_values(noises, history)
    conditions = conditions_for(denoiser, cond, num)
    network = CountedNetwork(denoiser, conditions, num, batch_size, network_device(denoiser, x_T))
    tell: Progress = progress or (lambda stage, calls, best: None)
    tell("reference", 0, None)
    began = time.perf_counter()
    reference = Reference.solve(network, fine, noises)
    held_out = num // HELD_OUT
    by_class = getattr(denoiser, "num_classes", None) is not None and isinstance(conditions, Tensor)
    fitting = Fitting(
        network,
        reference,
        solver,
        torch.arange(num - held_out),
        history,
        conditions.expand(num) if by_class else None,
        "square" if loss == "square" or (loss, objective) == ("auto", "local") else "root",
        tell,
    )

    def further(number: int) -> Tensor:
        seen = range(SEEDS_FROM, SEEDS_FROM + num) if seeds is None else checked_seeds(seeds)
        fresh = [seed for seed in range(SEEDS_FROM, SEEDS_FROM + number + num) if seed not in set(seen)]
        return initial_state(grid, tuple(noises.shape[1:]), fresh[:number])

    held = HeldOut(fitting, torch.arange(num - held_out, num), further if x_T is None else None)
    settings = {
        "history": history,
        "analytic": analytic,
        "loss": loss,
        "reference_steps": reference_steps,
        "search": search,
        "objective": objective,
        "features": getattr(features, "__name__", None if features is None else repr(features)),
        "seeds": None if seeds is None else checked_seeds(seeds),
    }
    model = described(denoiser)
    recipes: list[Recipe] = []
    for one in grids:
        most = (network.calls if recipes else 0) + (5 * num * reference_steps if budget is None else budget)
        candidates = fitting.candidates(counts)
        tables, place, tried = fitting.started(one, candidates, most if search else None)
        fits = {}
        for kind in ("square", "root") if loss == "auto" and objective == "final" else (fitting.loss,):
            rows = fitting.rows(tables, place, kind)
            local = objective == "local"
            fits[kind] = rows.table.finished() if local else fitting.final(tables, rows, kind, search, features), rows
        kind = min(fits, key=lambda name: held.score(fits[name][0]))
        plan, rows = fits[kind]
        base = base_plan(solver, one)
        gain, numbers_held = held.gain(base, plan)
        better = gain.low > 1.0
        report = Report(
            before=gain.before,
            after=gain.after if better else gain.before,
            gain=gain.gain if better else 1.0,
            gain_low=gain.low if better else 1.0,
            gain_high=gain.high if better else 1.0,
            kept="fitted" if better else "base",
            num=num,
            held_out=numbers_held,
            calls=network.calls,
            seconds=time.perf_counter() - began,
            rows=rows.fits,
            tried=tuple(tried),
            settings={**settings, "chosen": {"loss": kind, "analytic": tables.label or "none"}},
            quantiles_before=gain.quantiles_before,
            quantiles_after=gain.quantiles_after if better else gain.quantiles_before,
            worst=gain.worst,
        )
        recipes.append(Recipe(plan if better else base, report, model))
    return recipes[0] if steps is None else RecipeBook(tuple(recipes))


def _numbers(steps: Iterable[int]) -> list[int]:
    try:
        found = [as_integer(number) for number in steps]
    except TypeError:
        found = []
    numbers = [number for number in found if number is not None and number > 0]
    if not found or len(set(numbers)) < len(found):
        raise InputError(f"steps is {shown(steps)}: give different whole numbers of at least 1, such as range(4, 13).")
    return numbers


def _counts(analytic: int | str) -> list[int]:
    if isinstance(analytic, str) and analytic == "auto":
        return list(range(MOST_ANALYTIC + 1))
    number = as_integer(analytic)
    if number is None or number < 0:
        raise InputError(
            f"analytic is {shown(analytic)}: give 'auto', or how many of the first predictions are formulas."
        )
    return [number]


def _check_settings(objective: str, features: Callable[[Tensor], Tensor] | None, progress: Progress | None) -> None:
    as_word("objective", objective, ("final", "local"))
    check_callback("features", features)
    check_callback("progress", progress)
    if features is not None and objective == "local":
        raise InputError("features are compared at the final samples: write objective='final', or leave them out.")


def _noises(
    denoiser: object,
    grid: TimeGrid,
    x_T: Tensor | None,
    seeds: Sequence[int] | None,
    num: int,
    batch_size: int,
) -> Tensor:
    """Return the noises [num, …] on the host."""
    if x_T is not None:
        if seeds is not None:
            raise InputError("x_T and seeds are both given: leave one of them out.")
        if not isinstance(x_T, Tensor) or not x_T.is_floating_point() or x_T.ndim < 2 or len(x_T) != num:
            found = f"{tuple(x_T.shape)} {x_T.dtype}" if isinstance(x_T, Tensor) else type(x_T).__name__
            raise InputError(f"x_T is {found}: give a floating-point tensor [num, …], here with num = {num}.")
        return x_T.detach().to(device="cpu", dtype=torch.promote_types(x_T.dtype, torch.float32))
    shape = getattr(denoiser, "shape", None)
    if shape is None:
        raise InputError(
            "the denoiser does not know the shape of a sample: give x_T [num, …], or "
            "fs.Denoiser(..., shape=(3, 32, 32))."
        )
    chosen = range(SEEDS_FROM, SEEDS_FROM + num) if seeds is None else checked_seeds(seeds, num)
    x_T = scratch((num, *shape), torch.float32)
    for start in range(0, num, batch_size):
        x_T[start : start + batch_size] = initial_state(grid, shape, chosen[start : start + batch_size])
    return x_T


def _check_values(x_T: Tensor, history: int) -> None:
    """Refuse fits with fewer values than twice their coefficients."""
    num, values = len(x_T), x_T[0].numel()
    fitted = (num - num // HELD_OUT) * values
    wanted = 2 * (1 + history)
    if fitted < wanted:
        raise InputError(
            f"num is {num} with {values} values a sample: a row of {1 + history} coefficients needs at least {wanted} "
            f"values to be fitted; raise num to {-(-wanted * 4 // (3 * values))} or lower history."
        )
