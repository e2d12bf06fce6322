"""The public ``calibrate``: a model, a solver and a grid in, a plan fitted to the model out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, overload

from torch import Tensor

from fewstep.calibration.base_plan import base_plan
from fewstep.calibration.conditions import conditions_for
from fewstep.calibration.fitting import Progress, check_target
from fewstep.calibration.interior_times import resampled
from fewstep.calibration.least_squares import Loss
from fewstep.calibration.network import CountedNetwork, checked_predictor
from fewstep.calibration.noises import check_values, noises_for
from fewstep.calibration.reference import reference_grid
from fewstep.calibration.settings import Objective, Settings, checked_steps
from fewstep.calibration.stages import Calibration
from fewstep.denoiser import DataPredictor, network_device
from fewstep.fingerprint import described
from fewstep.metrics.frechet import FeatureSet, moments_of
from fewstep.recipe import Recipe, RecipeBook
from fewstep.solvers import Solver
from fewstep.time_grid import TimeGrid

__all__ = ["calibrate"]


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
    analytic: int | Literal["auto", "last"] = "auto",
    loss: Loss | Literal["auto"] = "auto",
    reference_steps: int = 100,
    search: bool = False,
    objective: Objective = "final",
    features: Callable[[Tensor], Tensor] | None = None,
    target: FeatureSet | None = None,
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

    Of an ``fs.SASolver`` that adds noise, ``objective="distribution"`` fits τ of each step, and then τ and the rows'
    deviations from SA-Solver's for it, to the moments of features of the samples; the rows are not fitted one by one
    before. It starts from the solver's τ or a constant, whichever comes closest. The noise of each calibration noise is
    what ``fs.execute`` draws from its seed, the same at every trial. τ stays above 0 in all steps that may add noise
    (above 10⁻³, so that each has its own draws).

    Where noise is high, predictions can be formulas of the state in place of network calls (``analytic``): a plan then
    has more rows than calls. A formula is a mean and gains, one or a matrix of the channels for each spatial frequency;
    the form that predicts best on noises it has not seen is taken. With "auto" and "last" another one may come after
    the last row, a row more in the last interval: x_N = mean + gain∘x with the last row's x, and of samples of several
    channels + Σ_j gain_j∘H_j with the predictions H_j before it, fitted to the reference's samples by least squares at
    every point of the rows' fit (variable projection).

    A quarter of the noises is held out. The fit is returned only if it is better on them beyond doubt: the lower end of
    the gain's 95 % interval is above 1. Where the interval contains 1, three times as many noises more are held out.
    Otherwise the solver's plan is returned; with ``search``, the best on all noises of that and the plans of iPNDM,
    UniPC and DPM-Solver++ on their grids for the spectrum of the samples: a fit must then be better than it.
    ``objective="local"`` without a search and analytic predictions costs num·(reference_steps + N) calls, and 2·N for
    each held-out noise.

    States, predictions and the reference lie in temporary files (``TMPDIR``), so memory does not grow with ``num``.
    Fits start from the solver's rows, ridges are chosen by cross-validation, sums are made in float64 noise by
    noise: the result does not depend on ``batch_size``, up to the network's rounding.

    Source: the row-by-row fit in closed form is fewstep's. S4S (arXiv 2502.17423) and LD3 (arXiv 2405.15506) learn
    coefficients and times with gradients through the network.

    Args:
        denoiser: an ``fs.Denoiser`` with its guidance, or a callable (x_t, t) → x0.
        solver: with one call a step; fits start from its rows. It adds no noise, or is an ``fs.SASolver`` with
            ``few_step=True``, or without a corrector, for ``objective="distribution"``.
        grid: the times, N steps for N network calls; with ``search``, its ends and number of steps stay. For other
            numbers of steps, and with analytic predictions, its λ are interpolated.
        x_T: noises [num, …] at the grid's first time, in place of ``seeds``: for a callable, whose shape is not known.
            A denoiser that does not know its device is called on theirs.
        steps: numbers of network calls, such as range(4, 13): one reference serves all, and a book of recipes is made.
        num: how many noises, at least 8.
        seeds: of the noises, and of the noise of steps; the default is ``num`` numbers from 10⁹ on, so that samples
            are not drawn from them.
        cond: what to calibrate on. None: every class in turn for a model with classes, no condition for others;
            "none": no condition; one class for all; or one condition for each noise: a tensor [num, …], or keywords
            with such tensors, nested ones too, such as the embeddings of prompts; a tensor [1, …] of them is for all.
        history: predictions whose coefficients are fitted in a row; older ones keep the solver's.
        analytic: how many first predictions are formulas fitted to the model; "last" leaves all of them to the network
            and tries a formula after the last row, which any pipeline can run; "auto" tries 0 to 3 first ones and,
            except for ``objective="distribution"``, one after the last row; for a solver that adds noise, none.
        loss: "square", the mean square of the noises' errors; "root", the square of the mean of their roots, in which a
            few noises that end in another picture count for little; "auto" fits with both and keeps the one
            whose mean and median on the held-out noises are lower; without a fit to final samples it is "square".
        reference_steps: calls of the reference solution, well above the grid's.
        search: whether the times between the ends are searched.
        objective: "final"; "features", the same in a space of features, by which the fit is then chosen and judged too;
            "distribution", which goes on from there to fit mean and covariance of the features, and chooses and judges
            by their Fréchet distance; or "local", the row-by-row fit alone.
        features: of "features" and "distribution": samples [n, …] → [n, …], such as the output of a classifier.
        target: of "distribution": the moments that the features should have, or features [n, d] of real images, with
            which ``num`` should be some hundreds; None for the moments of the model's solutions from the same noises,
            which fewer noises tell apart.
        budget: with ``search``, the network calls after which no new trial begins; None for 5·num·reference_steps.
        batch_size: samples in a network call.
        progress: called as progress(stage, calls so far, best error of the stage or None); of a book the stage names
            the recipe, as "6 calls: final".

    Returns:
        The recipe; with ``steps``, a book of recipes.

    Raises:
        InputError: if the solver adds noise, on this grid or on one that ``search`` may move to, and is no
            ``fs.SASolver``, or ``objective`` is not "distribution", or ``search``, ``analytic`` or ``loss`` is given
            with it; if it calls the network more than once a step, there are too few noises for the fit, or settings,
            shapes, seeds or conditions do not fit.
        NonFiniteStateError: if the network returns a value that is not finite.
    """
    noise = objective == "distribution"
    base_plan(solver, grid, noise=noise)
    numbers = checked_steps(steps, grid.steps)
    grids = [resampled(grid, number) for number in numbers]
    checked_predictor(denoiser, grid.process)
    settings = Settings(
        num=num,
        seeds=seeds,
        history=history,
        analytic=analytic,
        loss=loss,
        reference_steps=reference_steps,
        search=search,
        objective=objective,
        features=features,
        target=None if target is None else moments_of(target),
        budget=budget,
        batch_size=batch_size,
        progress=progress,
        steps=numbers,
        stochastic=any(base_plan(solver, one, noise=noise).stochastic for one in grids),
    )
    fine = reference_grid(max(grids, key=lambda one: one.steps), settings.reference_steps)
    if settings.search:
        base_plan(solver, fine)  # Where times may move to.
    noises = noises_for(denoiser, grid, x_T, seeds, settings.num, settings.batch_size)
    check_values(noises, settings.history)
    if settings.target is not None and settings.features is not None:
        check_target(settings.target, settings.features, noises[:1])
    conditions = conditions_for(denoiser, cond, settings.num)
    network = CountedNetwork(denoiser, conditions, settings.num, settings.batch_size, network_device(denoiser, x_T))
    by_class = getattr(denoiser, "num_classes", None) is not None and isinstance(conditions, Tensor)
    classes = conditions.expand(settings.num) if by_class else None
    calibration = Calibration.begun(
        network, solver, fine, noises, settings, described(denoiser), classes=classes, drawn=x_T is None
    )
    recipes = tuple(calibration.recipe(one) for one in grids)
    return recipes[0] if steps is None else RecipeBook(recipes)
