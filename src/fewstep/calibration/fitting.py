"""The stages of a calibration, on one model, one reference and one split of the noises."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fewstep.calibration.base_plan import base_plan
from fewstep.calibration.distribution_problem import DistributionProblem
from fewstep.calibration.final_problem import FinalProblem
from fewstep.calibration.formulas import Form, Formulas, forms_for
from fewstep.calibration.gauss_newton import Point, descend
from fewstep.calibration.interior_times import InteriorTimes, resampled
from fewstep.calibration.least_squares import Loss, total
from fewstep.calibration.moment_target import MomentTarget
from fewstep.calibration.network import CountedNetwork
from fewstep.calibration.reference import Reference
from fewstep.calibration.rows import FittedRows, fit_rows
from fewstep.calibration.search import Tried, search_times, some_of
from fewstep.calibration.student import BaseTables
from fewstep.calibration.times_problem import TimesProblem
from fewstep.denoiser import network_device
from fewstep.errors import InputError
from fewstep.executor import execute
from fewstep.metrics.frechet import moments_of
from fewstep.metrics.moments import Moments
from fewstep.plan import Plan
from fewstep.solvers import Solver
from fewstep.spectra import Spectrum
from fewstep.time_grid import TimeGrid

__all__ = ["Fitting", "Progress", "check_target"]

Progress = Callable[[str, int, float | None], Any]
"""progress(stage, network calls so far, best root mean square error of the stage so far, or None)."""

SAMPLES = 64
"""The most noises whose samples a spectrum is measured on."""
FINAL_ROUNDS = 3
SEARCHED_ROUNDS = 8
"""Rounds of fitting all rows to the final samples, and of fitting rows and times together after a search."""
LAST_ROUNDS = 4
"""Rounds of fitting on with a formula after the last row."""
DISTRIBUTION_ROUNDS = 3
"""Rounds of fitting to moments of features, after those."""


@dataclass(frozen=True)
class Fitting:
    """What all stages share.

    Attributes:
        network: the model, which counts its calls.
        reference: the solution of every noise.
        solver: makes the rows that fits start from.
        which: the noises to fit on.
        history: predictions whose coefficients are fitted in a row.
        classes: the class of each noise, if the model has classes.
        loss: how the errors of noises are summed.
        progress: called with how far it is.
        features: the space in which final samples are compared, [n, …] → [n, …]; None for the samples themselves.
        seeds: of the noise that steps add, for each noise and for those held out besides.
    """

    network: CountedNetwork
    reference: Reference
    solver: Solver
    which: Tensor
    history: int
    classes: Tensor | None
    loss: Loss
    progress: Progress
    features: Callable[[Tensor], Tensor] | None = None
    seeds: Sequence[int] = ()

    def placement(self, grid: TimeGrid) -> InteriorTimes:
        """Return where the interior times of ``grid`` may go."""
        finite = self.reference.grid.half_logsnr[torch.isfinite(self.reference.grid.half_logsnr)]
        return InteriorTimes(grid, float(finite[-1]))

    def spectrum(self) -> Spectrum | None:
        """Return the spectrum of the reference's samples, of some of the noises to fit on; None if nothing varies."""
        some = self.which[:SAMPLES]
        try:
            return Spectrum.of(self.reference.end[some], classes=None if self.classes is None else self.classes[some])
        except InputError:
            return None

    def candidates(self, counts: Sequence[int]) -> list[BaseTables]:
        """Return what fits may start from: so many first predictions by formulas, in the form that predicts best."""
        forms = forms_for(tuple(self.reference.end.shape[1:]), self.classes)
        if not any(counts):
            return [BaseTables(self.solver, self.history)]
        probes = self.reference.grid.times[: max(1, self.reference.grid.steps // 4) : 3].tolist()

        def missed(form: Form) -> float:
            formulas = Formulas(self.reference, self.which, form, 1, self.classes)
            return sum(math.log(max(formulas.error(t), sys.float_info.min)) for t in probes)

        best = min(forms, key=missed)
        return [
            BaseTables(
                self.solver,
                self.history,
                Formulas(self.reference, self.which, best, count, self.classes) if count else None,
            )
            for count in counts
        ]

    def started(
        self, grid: TimeGrid, candidates: Sequence[BaseTables], most: int | None
    ) -> tuple[BaseTables, TimeGrid, list[Tried]]:
        """Return the best of the candidates with its grid, and what was tried.

        Args:
            grid: as many intervals as calls; a candidate with formulas has as many more.
            candidates: the starts.
            most: network calls in all after which the search for times begins nothing new; None for no search.
        """
        if len(candidates) > 1:
            candidates = [tables for tables in candidates if not tables.count or self._fits(tables, grid)]
        if most is not None:
            return self._searched(grid, candidates, most)
        if len(candidates) == 1:
            return candidates[0], resampled(grid, grid.steps + candidates[0].count), []
        found = []
        for tables in candidates:
            place = resampled(grid, grid.steps + tables.count)
            ends = self.rows(tables, place, self.loss).end
            errors = self.reference.errors(ends, self.which)
            found.append((total(errors, self.loss), tables, place))
        found.sort(key=lambda entry: entry[0])
        return *found[0][1:], [(tables.label or "none analytic", error**0.5) for error, tables, _ in found]

    def _fits(self, tables: BaseTables, grid: TimeGrid) -> bool:
        """Whether the solver's rows on ``grid``, with an interval more for each formula, can be fitted."""
        try:
            base_plan(tables.solver, resampled(grid, grid.steps + tables.count))
        except InputError:
            return False
        return True

    def _searched(
        self, grid: TimeGrid, candidates: Sequence[BaseTables], budget: int
    ) -> tuple[BaseTables, TimeGrid, list[Tried]]:
        """Return the best start, the best grid found within ``budget`` calls, and all starts of the search."""
        some, spectrum = some_of(self.which, self.reference.end[0].numel()), self.spectrum()
        problems = [
            (
                tables.label,
                TimesProblem(
                    self.placement(resampled(grid, grid.steps + tables.count)),
                    tables,
                    self.network,
                    self.reference,
                    some,
                    self.loss,
                    spectrum,
                ),
            )
            for tables in candidates
        ]
        problem, best, tried = search_times(
            problems, lambda: self.network.calls < budget, lambda error: self.progressed("times", error)
        )
        return problem.tables, best, tried

    def rows(self, tables: BaseTables, grid: TimeGrid, loss: Loss) -> FittedRows:
        """Return the rows fitted one by one, ridge and width of each chosen by cross-validation."""
        rows = fit_rows(tables.on(grid), self.network, self.reference, self.which, history=self.history, loss=loss)
        self.progressed("rows", rows.fits[-1].fitted)
        return rows

    def final(
        self, tables: BaseTables, rows: FittedRows, loss: Loss, times: bool, rounds: int | None = None
    ) -> tuple[FinalProblem, Point]:
        """Return the fit of the rows, and of the times if they are free, to the final samples."""
        plan = rows.table.plan
        grid = plan.grid
        placement = self.placement(grid)
        problem = FinalProblem(
            rows,
            tables,
            self.network,
            self.reference,
            self.which,
            tuple(1 + min(n + 1, self.history) for n in range(plan.steps)),
            placement if times and plan.steps > 1 and placement.holds(grid) else None,
            self.compared,
            some_of(self.which, self.reference.end[0].numel()),
            loss,
        )
        rounds = (SEARCHED_ROUNDS if times else FINAL_ROUNDS) if rounds is None else rounds
        return problem, self._descended(problem, problem.start(), rounds)

    def with_last(self, problem: FinalProblem, point: Point, rounds: int = LAST_ROUNDS) -> Point | None:
        """Return the fit of rows and a formula after the last one together, from ``point`` on; None if none helps.

        It knows no classes: samples have them by then, and pipelines, which do not tell them, can run it.
        """
        found = problem.with_last(point, forms_for(tuple(self.reference.end.shape[1:]), None, problem.most_past))
        return None if found is None else self._descended(*found, rounds)

    def _descended(self, problem: FinalProblem, start: Point, rounds: int) -> Point:
        return descend(problem, start, rounds, progress=lambda point: self.progressed("final", point.error**0.5))

    def distribution(self, problem: FinalProblem, start: Point, target: Moments | None) -> list[Plan]:
        """Return the plans after each round of a fit to moments of features, from a fit to the final samples.

        Args:
            problem: what ``start`` is a point of.
            start: where to begin.
            target: the moments that the features should have; None for those of the solutions.
        """
        found: list[Plan] = []

        def better(point: Point) -> None:
            self.progressed("distribution", point.error**0.5)
            found.append(point.detail.finished())

        moments = DistributionProblem.like(problem, self.wanted(target))
        first = moments.evaluate(start.theta)
        assert first is not None
        descend(moments, first, DISTRIBUTION_ROUNDS, progress=better)
        return found

    def wanted(self, target: Moments | None) -> MomentTarget:
        """Return the moments to fit to; None stands for those of the solutions."""
        return MomentTarget(moments_of(self.compared(self.reference.end[self.which])) if target is None else target)

    def compared(self, samples: Tensor) -> Tensor:
        """Return what is compared of samples on the host: their features, or they themselves."""
        return samples if self.features is None else features_of(self.features, samples)

    def errors(self, plan: Plan, which: Tensor) -> Tensor:
        """Return the mean square error of the final sample of each noise, float64 [len(which)]."""
        x_T = self.reference.state(float(plan.times[0]), which)
        return self.errors_to(plan, which, x_T, self.reference.end[which])

    def errors_to(self, plan: Plan, which: Tensor, x_T: Tensor, exact: Tensor) -> Tensor:
        """Return the mean square error of each noise, from ``x_T`` [n, …] to ``exact``, as compared, float64 [n]."""
        blocks = torch.arange(len(which)).split(self.network.batch_size)
        ends = zip(self.ends(plan, which, x_T), blocks, strict=True)
        gaps = (end - self.compared(exact[place]).double() for end, place in ends)
        return torch.cat([gap.square().flatten(1).mean(1) for gap in gaps])

    def ends(self, plan: Plan, which: Tensor, x_T: Tensor) -> Iterator[Tensor]:
        """Yield what is compared of the final sample of each noise, from ``x_T`` [n, …], float64 [block, …]."""
        for place in torch.arange(len(which)).split(self.network.batch_size):
            cond = None if self.classes is None else self.classes[which[place] % len(self.classes)]
            network = self.network.bound(which[place])
            seeds = [self.seeds[i] for i in which[place].tolist()] if plan.stochastic else None
            end = execute(plan, network, x_T[place].to(self.network.device), seeds=seeds, cond=cond).cpu()
            yield self.compared(end).double()

    def progressed(self, stage: str, best: float | None) -> None:
        """Tell how far it is."""
        self.progress(stage, self.network.calls, best)


@torch.no_grad()
def features_of(features: Callable[[Tensor], Tensor], samples: Tensor) -> Tensor:
    """Return the features of samples, computed where they are computed, on the host."""
    return features(samples.to(network_device(features, samples))).cpu()


def check_target(target: Moments, features: Callable[[Tensor], Tensor], samples: Tensor) -> None:
    """Refuse moments of other features.

    Raises:
        InputError: if those of ``samples`` [n, …] have another number of dimensions.
    """
    found = features_of(features, samples).flatten(1).shape[1]
    if found != len(target.mean):
        raise InputError(
            f"target has {len(target.mean)} dimensions, features= makes {found}: give the moments of the same features."
        )
