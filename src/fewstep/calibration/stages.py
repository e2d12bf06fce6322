"""The stages of a calibration: reference, starts, candidates, choice, report."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from fewstep.calibration.base_plan import base_plan
from fewstep.calibration.final_problem import FinalProblem
from fewstep.calibration.fitting import LAST_ROUNDS, Fitting
from fewstep.calibration.gauss_newton import Point
from fewstep.calibration.held_out import Gain, HeldOut
from fewstep.calibration.held_out_moments import HeldOutMoments
from fewstep.calibration.network import CountedNetwork
from fewstep.calibration.noises import HELD_OUT, further_noises, seeds_for
from fewstep.calibration.reference import Reference
from fewstep.calibration.rows import FittedRows
from fewstep.calibration.search import Tried, untuned
from fewstep.calibration.settings import Settings
from fewstep.calibration.stochastic import stochastic_fits
from fewstep.calibration.student import BaseTables
from fewstep.plan import Plan
from fewstep.recipe import Recipe, Report
from fewstep.solvers import SASolver, Solver
from fewstep.time_grid import TimeGrid

__all__ = ["Calibration"]


@dataclass(frozen=True)
class Start:
    """Where fits start: what makes the tables, the grid, and all that was tried with its error."""

    tables: BaseTables
    grid: TimeGrid
    tried: tuple[Tried, ...]


@dataclass(frozen=True)
class Candidate:
    """A fitted plan, how it was fitted, its rows as they were before they were fitted together, and that fit.

    ``together`` is the problem and its best point; None for rows fitted one by one.
    """

    plan: Plan
    told: Mapping[str, str]
    rows: FittedRows | None = None
    together: tuple[FinalProblem, Point] | None = None


@dataclass(frozen=True)
class Spent:
    """Network calls and seconds, from the beginning."""

    calls: int
    seconds: float


@dataclass
class Calibration:
    """A calibration whose reference is solved; ``recipe`` runs the other stages, for one number of calls each.

    Attributes:
        settings: what was asked for.
        fitting: what makes fits, with the reference.
        held: the held-out noises.
        model: what is calibrated, for the recipe.
        reference: what the shared first stages cost.
        tables: what fits may start from.
    """

    settings: Settings
    fitting: Fitting
    held: HeldOut
    model: Mapping[str, Any]
    reference: Spent
    tables: list[BaseTables]
    _recipes: int = field(default=0, init=False)

    @classmethod
    def begun(
        cls,
        network: CountedNetwork,
        solver: Solver,
        fine: TimeGrid,
        x_T: Tensor,
        settings: Settings,
        model: Mapping[str, Any],
        *,
        classes: Tensor | None,
        drawn: bool,
    ) -> Calibration:
        """Solve the reference, and part the noises into those to fit on and those held out.

        Args:
            network: the model with its conditions.
            solver: makes the rows that fits start from.
            fine: the reference's grid.
            x_T: the noises [num, …].
            settings: what was asked for.
            model: what is calibrated, for the recipe.
            classes: of each noise, [num], if the model has classes.
            drawn: whether the noises were drawn from seeds, so that further ones can be.
        """
        began = time.perf_counter()
        progress = settings.progress or (lambda stage, calls, best: None)
        progress("reference", 0, None)
        reference = Reference.solve(network, fine, x_T)
        num, held_out = settings.num, settings.num // HELD_OUT
        which = torch.arange(num - held_out)
        fitting = Fitting(
            network,
            reference,
            solver,
            which,
            settings.history,
            classes,
            settings.first_loss,
            progress,
            settings.features,
            seeds_for(settings.seeds, num),
        )

        def further(number: int) -> Tensor:
            return further_noises(fine, tuple(x_T.shape[1:]), settings.seeds, num, number)

        rest, draw = torch.arange(num - held_out, num), further if drawn else None
        moments = settings.objective == "distribution"
        held = HeldOutMoments(fitting, rest, draw, settings.target) if moments else HeldOut(fitting, rest, draw)
        spent = Spent(network.calls, time.perf_counter() - began)
        return cls(settings, fitting, held, model, spent, fitting.candidates(settings.counts))

    def recipe(self, grid: TimeGrid) -> Recipe:
        """Return the recipe for as many network calls as ``grid`` has steps."""
        calls, began = self.fitting.network.calls, time.perf_counter()
        told = self.settings.progress
        if told is not None and len(self.settings.steps) > 1:

            def progress(stage: str, calls: int, best: float | None) -> None:
                told(f"{grid.steps} calls: {stage}", calls, best)

            self.fitting = replace(self.fitting, progress=progress)
        if self.settings.stochastic:
            start, chosen = self.with_noise(grid)
        else:
            start = self.start(grid)
            chosen = self.choice(self.candidates(start))
        self._recipes += 1
        return self.report(grid, start, chosen, Spent(calls, began))

    def start(self, grid: TimeGrid) -> Start:
        """Return where fits start: how many formulas on which grid, the times searched if that is wanted."""
        before = self.fitting.network.calls if self._recipes else 0
        most = before + self.settings.calls if self.settings.search else None
        tables, place, tried = self.fitting.started(grid, self.tables, most)
        return Start(tables, place, tuple(tried))

    def candidates(self, start: Start) -> list[Candidate]:
        """Return the plans fitted from there.

        For each loss the rows one by one, all together if that is wanted, and either with a formula after the last row.
        """
        found, local = [], self.settings.objective == "local"
        for loss in self.settings.losses:
            rows = self.fitting.rows(start.tables, start.grid, loss)
            found.append(Candidate(rows.table.finished(), {"loss": loss}, rows))
            # Only a history of data predictions, of which a last formula is one, has a place for it.
            last = self.settings.last and rows.table.plan.prediction == "x0"
            if local and not last:
                continue
            problem, point = self.fitting.final(
                start.tables, rows, loss, self.settings.search and not local, 0 if local else None
            )
            if not local:
                found.append(Candidate(point.detail.finished(), {"loss": loss}, rows, (problem, point)))
            ended = self.fitting.with_last(problem, point, 0 if local else LAST_ROUNDS) if last else None
            if ended is not None:
                found.append(Candidate(ended.detail.finished(), {"loss": loss, "last": ended.detail.last.form}, rows))
        return found

    def choice(self, candidates: list[Candidate]) -> Candidate:
        """Return the candidate that is best on the held-out noises."""
        best = min(candidates, key=lambda candidate: self.held.score(candidate.plan))
        return self.redistributed(best, candidates) if self.settings.objective == "distribution" else best

    def redistributed(self, best: Candidate, candidates: list[Candidate]) -> Candidate:
        """Return the fit to moments that is best on the held-out noises, if it is better beyond doubt than ``best``."""
        fits = [candidate for candidate in candidates if candidate.together is not None]
        begin = min(fits, key=lambda candidate: self.held.score(candidate.plan))
        assert begin.together is not None
        plans = self.fitting.distribution(*begin.together, self.settings.target)
        if not plans:
            return best
        chosen = min(plans, key=self.held.score)
        gain, _ = self.held.gain(best.plan, chosen)
        return Candidate(chosen, begin.told, begin.rows) if gain.low > 1.0 else best

    def with_noise(self, grid: TimeGrid) -> tuple[Start, Candidate]:
        """Return the starts of a stochastic fit, and the plan of its rounds that is best on the held-out noises."""
        solver = self.fitting.solver
        assert isinstance(solver, SASolver)
        fits, tried = stochastic_fits(self.fitting, solver, grid, self.fitting.wanted(self.settings.target))
        best = min(fits, key=lambda fit: self.held.score(fit.plan))
        told = {"start": tried[0][0], "rows": "fitted" if best.rows else "the solver's"}
        return Start(self.tables[0], grid, tuple(tried)), Candidate(best.plan, told)

    def base(self, grid: TimeGrid) -> Plan:
        """Return the plan that a fit must be better than.

        It is the solver's, or after a search the best on all noises of that and those on grids for the spectrum of the
        samples: no coefficient of theirs was fitted to any.
        """
        given = base_plan(self.fitting.solver, grid, noise=self.settings.stochastic)
        if not self.settings.search:
            return given
        every = replace(self.held, which=torch.arange(self.settings.num))
        return min([given, *untuned(grid, self.fitting.spectrum())], key=every.score)

    def report(self, grid: TimeGrid, start: Start, chosen: Candidate, since: Spent) -> Recipe:
        """Return the recipe: the fitted plan where it is better on the held-out noises beyond doubt, else the base.

        Its cost is that of the shared stages and of all ``since`` then.
        """
        base = self.base(grid)
        gain, held_out = self.held.gain(base, chosen.plan)
        better = gain.low > 1.0
        report = Report(
            before=gain.before,
            after=gain.after if better else gain.before,
            gain=gain.gain if better else 1.0,
            gain_low=gain.low if better else 1.0,
            gain_high=gain.high if better else 1.0,
            kept="fitted" if better else "base",
            num=self.settings.num,
            held_out=held_out,
            calls=self.reference.calls + self.fitting.network.calls - since.calls,
            seconds=self.reference.seconds + time.perf_counter() - since.seconds,
            rows=() if chosen.rows is None else chosen.rows.fits,
            tried=start.tried,
            settings={
                **self.settings.to_dict(),
                "chosen": {"last": "none", **chosen.told, "analytic": start.tables.label or "none"},
            },
            **({} if self.settings.stochastic else _of_noises(gain, better)),
        )
        return Recipe(chosen.plan if better else base, report, self.model)


def _of_noises(gain: Gain, better: bool) -> dict[str, Any]:
    """Return what a report says of single noises."""
    return {
        "quantiles_before": gain.quantiles_before,
        "quantiles_after": gain.quantiles_after if better else gain.quantiles_before,
        "worst": gain.worst,
    }
