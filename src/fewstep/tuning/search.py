"""The search of ``tune``: candidates, rounds, calibration, settings of the best, and the verdict."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch import Tensor

from fewstep import grids, solvers
from fewstep.calibration import calibrate
from fewstep.calibration.base_plan import base_plan
from fewstep.errors import InputError
from fewstep.fingerprint import described, guidance_scale
from fewstep.guidance import guidance_named
from fewstep.guidance.words import GuidanceWords
from fewstep.recipe import Recipe
from fewstep.recommended import recommended
from fewstep.skip import Profile, find
from fewstep.spectra import Spectrum
from fewstep.spectra import named as spectrum_named
from fewstep.tuning.journal import Journal, Measured, Task
from fewstep.tuning.objectives import Objective
from fewstep.tuning.pool import ranked
from fewstep.tuning.result import Tried, Tuning, Verdict
from fewstep.tuning.schedule import Schedule, ladder
from fewstep.tuning.settings import Settings
from fewstep.tuning.subject import Noises, Subject
from fewstep.tuning.verdict import verdict_of

__all__ = ["Progress", "Search"]

MOST_FRESH = 64
"""The most noises that what is left of the budget extends the verdict to."""
Progress = Callable[[str, int, int, float | None], None]
"""Called as progress(stage, tasks done, tasks in all, best value or None)."""
SCALES_UP, SCALES = (1.5, 2.0, 3.0, 4.0), (0.6, 0.8, 1.25, 1.5)
"""Guidance scales that are tried: for a model without guidance, and in units of the one that it has."""
RHOS = (0.95, 0.9, 0.8, 0.7)
"""Factors of the deepest skip that are tried."""
INTERVALS = ((0.2, 3.0), (0.2, 10.0), (0.0, 3.0))
"""Intervals of guidance that are tried, in σ/α."""


@dataclass
class Search:
    """A search in progress."""

    subject: Subject
    goal: Objective
    calls: int
    journal: Journal
    progress: Progress
    reference_steps: int | None
    used: dict[str, Measured] = field(default_factory=dict)
    best: float | None = None

    def __post_init__(self) -> None:
        self.default_of: Callable[[int], tuple[str, Settings]] = self._pipeline_default

    def run(self, budget: int | float) -> Tuning:
        """Return the result."""
        total = budget if isinstance(budget, int) else self._calls_in(budget)
        calls, variants = self.calls, self._variants()
        schedule = Schedule.of(
            total,
            calls,
            pool=120,
            to_solution=self.goal.to_solution,
            sets=self.goal.sets,
            variants=bool(variants) and not self.goal.to_solution,
            reference_steps=self.reference_steps,
        )
        self.subject.reference_steps = schedule.reference_steps
        name, default = self._default()
        pool = self._pool(schedule)
        tried = self._halved(pool, default, schedule)
        finalists = [one for one in tried if one.noises == schedule.noises]
        for analytic in schedule.analytic:
            fitted = self._calibrated(tried, schedule, analytic)
            if fitted is not None:
                finalists += self._measured([(fitted, None)], schedule.noises, "calibrated")
        best = min(finalists, key=self._order)
        if not self.goal.to_solution:
            for variant in variants:
                others = self._measured([(one, None) for one in variant(best.settings)], schedule.noises, "settings")
                finalists += others
                best = min([best, *others], key=self._order)
        most = schedule.reference_steps // 2 if self.goal.to_solution else 4 * calls
        verdict = self._verdict(best.settings, name, default, schedule.fresh, ladder(calls, most))
        solution = schedule.reference_steps if self.goal.to_solution else 0
        further = int((total - self._spent()) // (solution + calls + sum(verdict.default_values)))
        if further > 0:
            count = min(schedule.fresh + further, max(schedule.fresh, MOST_FRESH))
            rungs = [number for number in sorted(verdict.default_values) if number > calls]
            verdict = self._verdict(best.settings, name, default, count, rungs)
        chosen = best.settings if verdict.better else default
        recipe = self._recipe(chosen, verdict.to_dict(), total, schedule)
        every = {one.settings.key: one for one in (*tried, *finalists)}.values()
        shown_order = sorted(every, key=lambda one: (-one.noises, *self._order(one)))
        return Tuning(
            recipe,
            verdict,
            best.settings,
            default,
            tuple(shown_order),
            self._spent(),
            total,
            schedule.reference_steps,
            lambda count: self._samples(count, best.settings, name, default),
        )

    def _samples(self, count: int, winner: Settings, name: str, default: Settings) -> dict[str, tuple[str, Tensor]]:
        """Return samples of ``count`` fresh noises of the winner, the default and the solution."""
        noises, calls = Noises(0, count, fresh=True), f"{self.calls} calls"
        shown = {
            "best found": (f"{winner.name}, {calls}", self.subject.samples(winner, noises)),
            "default": (f"{name}, {calls}", self.subject.samples(default, noises)),
        }
        if self.goal.to_solution:
            steps = self.subject.reference_steps
            shown["solution"] = (f"{steps} calls", self.subject.solutions(noises))
        return shown

    def _order(self, one: Tried) -> tuple[float, str]:
        value = -one.value if self.goal.name == "score" else one.value
        return value, one.settings.key

    def _calls_in(self, seconds: float) -> int:
        """Return how many network calls the model makes in a time, measured once in a search."""
        plan = solvers.named("ddim").plan(grids.uniform_logsnr(self.subject.denoiser.process, 2, end="zero"))
        settings, noises = Settings("ddim", "speed", plan), Noises(0, self.subject.batch_size)

        def measure() -> Measured:
            self.subject.samples(settings, noises)
            began = time.perf_counter()
            self.subject.samples(settings, noises)
            each = (time.perf_counter() - began) / (plan.nfe * len(noises))
            return Measured(calls=2 * plan.nfe * len(noises), text=repr(each), value=each)

        (found,) = self._run([Task("speed", {"what": "seconds a call"}, measure)], "speed")
        return max(1, int(seconds / max(found.value, 1e-9)))

    def _default(self) -> tuple[str, Settings]:
        """Return the name and the settings of the sampler that comes with the model.

        Without one, or where it is none of fewstep's solvers, the recommended one.
        """
        if self.subject.model.default is not None:
            try:
                return self._pipeline_default(self.calls)
            except InputError as error:
                self.default_of = self._recommended
                warnings.warn(
                    f"the pipeline's own sampler is not compared with: {error} What fewstep recommends takes its "
                    "place.",
                    UserWarning,
                    stacklevel=4,
                )
        else:
            self.default_of = self._recommended
        return self._recommended(self.calls)

    def _pipeline_default(self, calls: int) -> tuple[str, Settings]:
        """Return the sampler that comes with the model.

        Raises:
            InputError: if it is none of fewstep's solvers, or does not run in so many calls.
        """
        assert self.subject.model.default is not None
        name, plan = self.subject.model.default(calls)
        if plan.nfe != calls:
            raise InputError(f"{name} calls the network {plan.nfe} times in {calls} steps.")
        return name, Settings(plan.solver, f"{name}'s levels", plan)

    def _recommended(self, calls: int) -> tuple[str, Settings]:
        """Return what is recommended for the model."""
        model = self.subject.model
        rule = recommended(model.denoiser.process, calls, latent=model.decode is not None)
        solver = solvers.named(rule.solver)
        plan = solver.plan(grids.named(rule.grid, model.denoiser.process, calls, solver=solver))
        if model.denoiser.integer_times:
            plan = solver.plan(plan.grid.on_training_steps())
        return "what fewstep recommends", Settings(rule.solver, rule.grid, plan)

    def _pool(self, schedule: Schedule) -> tuple[tuple[Settings, float], ...]:
        """Return the ranked candidates; the spectrum is measured once in a search, on the first solutions."""
        model, noises = self.subject.model, Noises(0, max(schedule.noises, 2))
        law = "video" if len(self.subject.shape) == 4 else "latents" if model.decode is not None else "pixels"

        def measure() -> Measured:
            if not self.goal.to_solution:
                return Measured(text=spectrum_named(law).to_json())
            made = self.subject.solutions(noises)
            cost = len(noises) * schedule.reference_steps
            try:
                return Measured(calls=cost, text=Spectrum.of(made).to_json())
            except InputError:  # Of samples that hardly vary there is none.
                return Measured(calls=cost, text=spectrum_named(law).to_json())

        key = f"spectrum {noises} of {schedule.reference_steps} steps"
        (found,) = self._run([Task(key, {"what": "spectrum"}, measure)], "solutions")
        rule = recommended(model.denoiser.process, self.calls, latent=model.decode is not None).grid
        rule = rule if rule.startswith("optimized") else "optimized"
        return ranked(
            model.denoiser.process,
            self.calls,
            Spectrum.from_json(found.text),
            rule,
            stochastic=not self.goal.to_solution,
            on_steps=model.denoiser.integer_times,
            boundary=getattr(model.denoiser, "boundary", None),
        )

    def _halved(self, pool: Sequence[tuple[Settings, float]], default: Settings, schedule: Schedule) -> list[Tried]:
        """Return what successive halving measured, each candidate on as many noises as it got."""
        left: list[tuple[Settings, float | None]] = [(default, None), *pool]
        found: dict[str, Tried] = {}
        for number, one in enumerate(schedule.rounds, start=1):
            stage = f"round {number} of {len(schedule.rounds)}: {one.noises} noise{'s' * (one.noises > 1)}"
            tried = self._measured(left[: one.candidates + 1], one.noises, stage)
            found |= {each.settings.key: each for each in tried}
            order = sorted(tried, key=self._order)
            left = [(each.settings, each.predicted) for each in order]
            if all(each.settings.key != default.key for each in order[: one.candidates]):
                left.insert(0, (default, None))
        return sorted(found.values(), key=lambda each: (-each.noises, *self._order(each)))

    def _measured(self, chosen: Sequence[tuple[Settings, float | None]], noises: int, stage: str) -> list[Tried]:
        """Return these settings, each measured on the first ``noises`` noises of the search."""
        chosen = list({settings.key: (settings, predicted) for settings, predicted in chosen}.values())
        tasks = [self._task(settings, Noises(0, noises)) for settings, _ in chosen]
        results = self._run(tasks, stage)
        tried = [
            Tried(settings, self.goal.shown(self.goal.value(result.rows)), noises, predicted)
            for (settings, predicted), result in zip(chosen, results, strict=True)
        ]
        self.best = min(tried, key=self._order).value if tried else self.best
        return tried

    def _task(self, settings: Settings, noises: Noises) -> Task:
        """Return the measurement of settings; what earlier rounds measured of the noises is taken over."""
        key = self._key(settings, noises)

        def measure() -> Measured:
            there = self.journal.measured
            seen = 0
            rows = [np.zeros((0, 1), np.float32)]
            if not self.goal.sets:
                for first in range(len(noises) - 1, 0, -1):
                    held = there.get(self._key(settings, replace(noises, last=first)))
                    if held is not None:
                        seen, rows = first, [held.rows]
                        break
            new = replace(noises, first=seen)
            made = self.goal.rows(self.subject, settings, new)
            rows = [made] if not seen else [*rows, made]
            together = np.concatenate(rows)
            cost = settings.plan.nfe * len(new)
            return Measured(together, cost, value=self.goal.value(together))

        words = {"solver": settings.solver, "grid": settings.grid, "settings": settings.name, "noises": str(noises)}
        return Task(key, words, measure)

    def _key(self, settings: Settings, noises: Noises) -> str:
        steps = f" of {self.subject.reference_steps} steps" if self.goal.to_solution else ""
        return f"{settings.key} {noises}{steps}"

    def _calibrated(self, tried: Sequence[Tried], schedule: Schedule, analytic: int) -> Settings | None:
        """Return the best candidate that can be calibrated with rows fitted to the model, or None.

        ``analytic`` of its first predictions are formulas.
        """
        base = next((one.settings for one in tried if _calibratable(one.settings)), None)
        if base is None:
            return None
        subject = self.subject
        solver, grid = solvers.named(base.solver), base.plan.grid

        def measure() -> Measured:
            rows = subject.conditions.of_noises(range(schedule.fitted), False)
            recipe = calibrate(
                subject.denoiser,
                solver,
                grid,
                num=schedule.fitted,
                cond="none" if rows is None else rows,
                reference_steps=schedule.fit_steps,
                search=True,
                analytic=analytic,
                loss="square",
                objective="final" if schedule.final else "local",
                budget=schedule.fit_budget,
                batch_size=subject.batch_size,
            )
            report = recipe.report
            assert report is not None
            return Measured(calls=report.calls, text=recipe.to_json(), value=report.after)

        words = f"calibrated {base.key}, {analytic} analytic, {'final' if schedule.final else 'local'}"
        key = f"{words}, {schedule.fitted} of {schedule.fit_steps}, {schedule.fit_budget}"
        (found,) = self._run([Task(key, {"what": "calibration", "settings": base.name}, measure)], "calibrating")
        recipe = Recipe.from_json(found.text)
        if recipe.report is not None and recipe.report.kept == "base":
            return None
        first = f", {analytic} analytic" if analytic else ""
        return replace(base, grid=f"calibrated times{first} (from {base.grid})", plan=recipe.plan)

    def _variants(self) -> list[Callable[[Settings], list[Settings]]]:
        """Return what else may be chosen, one after the other: guidance scale, interval, ρ."""
        model, found = self.subject.model, []
        given = guidance_named(guidance_scale(model.denoiser))
        by_classes = model.null_cond is not None and self.subject.conditions.count > 0
        if getattr(model.denoiser, "takes_guidance", by_classes) and given == GuidanceWords(given.scale):
            scales = [given.scale * factor for factor in SCALES] if given.scale > 1 else list(SCALES_UP)
            found.append(lambda best: [replace(best, guidance=each) for each in scales])
            found.append(lambda best: self._intervals(best, best.guidance or given.scale))
        try:
            skips = len(find(model.denoiser))
        except InputError:
            skips = 0
        if skips:
            found.append(lambda best: [replace(best, skip=Profile(rho, 1.0, skips=skips)) for rho in RHOS])
        return found

    def _intervals(self, best: Settings, scale: float | str) -> list[Settings]:
        """Return the settings with guidance in an interval, where the model is guided and can be so."""
        number = guidance_named(scale).scale
        words = [f"{number:g}:interval={low:g}:{high:g}" for low, high in INTERVALS]
        try:
            self.subject.model.guided(words[0])
        except InputError:
            return []
        return [replace(best, guidance=word) for word in words] if number > 1 else []

    def _verdict(self, winner: Settings, name: str, default: Settings, count: int, rungs: Sequence[int]) -> Verdict:
        """Return the verdict on ``count`` fresh noises; what was measured of the first of them is taken over."""
        fresh = Noises(0, count, fresh=True)

        def rows(number: int | None) -> np.ndarray | None:
            if number is None or number == self.calls:
                settings = winner if number is None else default
            else:
                try:
                    settings = self.default_of(number)[1]
                except InputError:
                    return None
            (found,) = self._run(
                [self._task(settings, fresh)], f"verdict on {len(fresh)} unseen noise{'s' * (len(fresh) > 1)}"
            )
            return found.rows

        return verdict_of(self.goal, name, self.calls, rows, rungs)

    def _recipe(self, chosen: Settings, verdict: Mapping[str, Any], budget: int, schedule: Schedule) -> Recipe:
        model = self.subject.model
        guided = model if chosen.guidance is None else model.guided(chosen.guidance)
        scale = guidance_scale(guided.denoiser)
        return Recipe(
            chosen.plan,
            None,
            described(guided.denoiser),
            guidance=None if scale == 1.0 and chosen.guidance is None else scale,
            skip=None if chosen.skip is None else json.loads(chosen.skip.to_json()),
            tuning={
                "solver": chosen.solver,
                "grid": chosen.grid,
                "objective": self.goal.identity,
                "budget": budget,
                "calls": self._spent(),
                "reference_steps": schedule.reference_steps,
                "verdict": dict(verdict),
            },
        )

    def _run(self, tasks: Sequence[Task], stage: str) -> list[Measured]:
        results = self.journal.run(tasks, lambda done: self.progress(stage, done, len(tasks), self.best))
        self.used |= {task.key: result for task, result in zip(tasks, results, strict=True)}
        return results

    def _spent(self) -> int:
        """Return the network calls of all results that were used, and of the verdict's solutions."""
        fresh = max((len(m.rows) for key, m in self.used.items() if " fresh " in f" {key}"), default=0)
        solved = fresh * self.subject.reference_steps if self.goal.to_solution else 0
        return sum(measured.calls for measured in self.used.values()) + solved


def _calibratable(settings: Settings) -> bool:
    if settings.plan.analytic or settings.plan.stochastic:
        return False
    try:
        base_plan(solvers.named(settings.solver), settings.plan.grid)
    except InputError:
        return False
    return True
