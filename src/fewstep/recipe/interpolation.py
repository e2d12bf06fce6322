"""A recipe for a guidance scale between those of others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from fewstep.errors import InputError
from fewstep.plan import Plan
from fewstep.recipe.recipe import Recipe
from fewstep.time_grid import TimeGrid

__all__ = ["interpolated"]


def interpolated(recipes: Sequence[Recipe], guidance_scale: float) -> Recipe:
    """Return a recipe for a guidance scale between those of two recipes, without a call of the network.

    λ of the times and all coefficients are linear in the scale between the nearest two. It has no report: nothing was
    measured at this scale.

    Args:
        recipes: of one model at two guidance scales or more, as many rows and calls each.
        guidance_scale: from the least to the largest of theirs.

    Raises:
        InputError: if a recipe does not know its scale, two have the same one, their plans differ in more than numbers,
            or ``guidance_scale`` lies outside.
    """
    scales = [recipe.model.get("guidance_scale") for recipe in recipes]
    known = sorted(float(scale) for scale in scales if scale is not None)
    if len(known) < 2 or len(known) < len(scales) or len(set(known)) < len(known):
        raise InputError(f"the recipes are of guidance scales {scales}: give two or more, of different scales.")
    if not known[0] <= guidance_scale <= known[-1]:
        raise InputError(f"guidance_scale is {guidance_scale!r}: the recipes reach from {known[0]:g} to {known[-1]:g}.")
    order = sorted(recipes, key=lambda recipe: float(recipe.model["guidance_scale"]))
    place = min(sum(scale < guidance_scale for scale in known[1:-1]), len(known) - 2)
    low, high = order[place], order[place + 1]
    share = (guidance_scale - known[place]) / (known[place + 1] - known[place])
    plan = _between(low.plan, high.plan, share)
    return Recipe(plan, None, {**low.model, "guidance_scale": float(guidance_scale)})


def _between(low: Plan, high: Plan, share: float) -> Plan:
    """Return the plan at ``share`` of the way from one to another of the same structure."""
    alike = (
        low.process == high.process
        and low.prediction == high.prediction
        and torch.equal(low.interval, high.interval)
        and torch.equal(low.evaluate, high.evaluate)
        and torch.equal(low.times[[0, -1]], high.times[[0, -1]])
        and not (low.analytic or high.analytic)
    )
    if not alike:
        raise InputError(
            "the recipes' plans differ in more than numbers, or have analytic predictions: calibrate all with one "
            "solver, grid and number of steps, and analytic=0."
        )
    inner = torch.lerp(low.grid.half_logsnr[1:-1], high.grid.half_logsnr[1:-1], share)
    times = torch.cat([low.times[:1], low.process.time(inner), low.times[-1:]])
    width = max(plan.history_weights.shape[1] for plan in (low, high))
    wide = [torch.nn.functional.pad(p.history_weights, (0, width - p.history_weights.shape[1])) for p in (low, high)]
    return replace(
        low,
        grid=TimeGrid(low.process, low.times if torch.equal(low.times, high.times) else times),
        state_weight=torch.lerp(low.state_weight, high.state_weight, share),
        history_weights=torch.lerp(wide[0], wide[1], share),
        noise_scale=torch.lerp(low.noise_scale, high.noise_scale, share),
        fitted=True,
    )
