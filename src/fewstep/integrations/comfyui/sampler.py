"""Our plans as a ComfyUI SAMPLER."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from typing import Any

import comfy.samplers
import torch
from torch import Tensor

from fewstep import solvers
from fewstep.errors import InputError, unknown_name
from fewstep.integrations import kdiffusion
from fewstep.integrations.comfyui.levels import ratio_at, state_process
from fewstep.integrations.comfyui.noise import image_seeds, step_noise
from fewstep.plan import Plan
from fewstep.solvers import Solver

__all__ = ["VARIANTS", "Choice", "choice_of", "sample", "sampler"]

VARIANTS = ("default", "exact", "published", "bh1", "bh2", "few-step", "many-step")
VARIANTS_OF = {"dpmpp": ("exact", "published"), "unipc": ("bh1", "bh2", "exact"), "sa": ("few-step", "many-step")}
LATER = 1e-4
"""Start of solvers of noise predictions on a flow, as a fraction of the process; ComfyUI's samplers start there too."""
Planned = Callable[[Any, Tensor], Plan]
"""(model sampling, sigmas) → plan whose times are the sigmas."""


@dataclass(frozen=True)
class Choice:
    """A solver as a node's inputs say it, until the model's levels are known.

    Attributes:
        solver: a solver's name.
        order: its order; for "sa" that of predictor and corrector.
        variant: "default", or a variant of "dpmpp" (exact, published), "unipc" (bh1, bh2, exact) or "sa" (few-step,
            many-step).
        corrector: whether "unipc" and "sa" correct.
        tau: τ of "sa".
        window: where τ is not 0: from and to, in percent of the sampling process, or in σ/α.
        window_in: "percent" or "sigma".
        eta: η of "ddim".
        settings: more settings of the solver, as name=value,name=value.
        levels: "model", or "sigma" to take a flow's σ for EDM's, as ComfyUI's dpmpp_2m does.
    """

    solver: str = "unipc"
    order: int = 2
    variant: str = "default"
    corrector: bool = True
    tau: float = 1.0
    window: tuple[float, float] = (0.0, 1.0)
    window_in: str = "percent"
    eta: float = 0.0
    settings: str = ""
    levels: str = "model"

    def plan(self, sampling: Any, sigmas: Tensor) -> Plan:
        """Return the plan on ``sigmas`` for a model of these levels."""
        solver, process = self.solver_for(sampling), state_process(sampling, as_sigma=self.levels == "sigma")
        later = torch.cat([sigmas.new_tensor([sampling.percent_to_sigma(LATER)]), sigmas[1:]])
        if float(process.alpha(sigmas[0])) == 0.0 and kdiffusion.planned(solver, process, later).prediction != "x0":
            # A noise prediction at α = 0 says nothing of the image: such a solver starts a little later.
            sigmas = later
        return kdiffusion.planned(solver, process, sigmas)

    def solver_for(self, sampling: Any) -> Solver:
        """Return the solver for a model of these levels.

        Raises:
            InputError: if the solver has no such setting, or does not allow its value.
        """
        if self.solver not in solvers.NAMES:
            raise unknown_name("solver", self.solver, solvers.NAMES)
        variants = ("default", *VARIANTS_OF.get(self.solver, ()))
        if self.variant not in variants:
            raise InputError(f"{self.solver!r} has no variant {self.variant!r}: choose {' or '.join(variants)}.")
        taken = signature(solvers.NAMES[self.solver]).parameters
        given: dict[str, Any] = {"order": self.order, "corrector": self.corrector, "eta": self.eta}
        if self.solver == "sa":
            given |= {"predictor_order": self.order, "corrector_order": self.order if self.corrector else 0}
            given |= {"few_step": self.variant != "many-step", "tau": self._tau(sampling)}
        elif self.variant != "default":
            given |= {"variant": self.variant}
        parts = [f"{name}={value}" for name, value in given.items() if name in taken]
        return solvers.named(f"{self.solver}:{','.join([*parts, self.settings])}")

    def _tau(self, sampling: Any) -> str:
        start, end = self.window
        if self.window_in == "percent":
            if not 0 <= start < end <= 1:
                raise InputError(
                    f"tau's window goes from {start:g} to {end:g} of the process: give 0 ≤ start < end ≤ 1."
                )
            start, end = ratio_at(sampling, start), ratio_at(sampling, end)
        low, high = sorted((start, end))
        return f"{self.tau}@{low}:{high}"


def sampler(plan: Planned, *, step_seed: int = 0, noise_on_cpu: bool = True) -> comfy.samplers.KSAMPLER:
    """Return the SAMPLER that runs ``plan``."""
    options = {"plan": plan, "step_seed": step_seed, "noise_on_cpu": noise_on_cpu}
    return comfy.samplers.KSAMPLER(sample, options)


def choice_of(made: Any) -> Choice | None:
    """Return what a SAMPLER was made of, if it is one of the sampler node's."""
    plan = getattr(made, "extra_options", {}).get("plan")
    owner = getattr(plan, "__self__", None)
    return owner if isinstance(owner, Choice) else None


def sample(
    model: Any,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Callable[[dict[str, Any]], Any] | None = None,
    disable: bool | None = None,
    *,
    plan: Planned,
    step_seed: int = 0,
    noise_on_cpu: bool = True,
) -> Tensor:
    """Return the samples at the last sigma: ComfyUI's sampler function.

    ``model`` is its KSamplerX0Inpaint, which applies the inpainting mask, around a guider around the model.
    """
    sigmas = _without_repeats(sigmas)
    if len(sigmas) < 2:
        return x
    sampling = model.inner_model.inner_model.model_sampling
    made = plan(sampling, sigmas)
    draw = None
    if made.stochastic:
        first, highest = float(sigmas[0]), float(sampling.sigma_max)
        late = first < highest and not math.isclose(first, highest, rel_tol=1e-5)
        seeds = image_seeds(int((extra_args or {}).get("seed") or 0), step_seed, getattr(model, "noise", None), len(x))
        draw = step_noise(x, seeds, level=first if late else None, on_cpu=noise_on_cpu)
    end = kdiffusion.run(made, model, x, extra_args=extra_args, callback=callback, disable=disable, noise_sampler=draw)
    mask = (extra_args or {}).get("denoise_mask")
    return end if mask is None or not made.fitted or sigmas[-1] > 0 else _with_what_is_kept(end, mask, model)


def _with_what_is_kept(end: Tensor, mask: Tensor, model: Any) -> Tensor:
    """Return the samples with the image where the mask is 0: fitted rows need not give a constant prediction back."""
    return torch.where(mask.to(end.device) == 0.0, model.latent_image.to(end), end)


def _without_repeats(sigmas: Tensor) -> Tensor:
    """Return the sigmas without those that repeat the one before: a step of no length changes nothing."""
    kept = torch.ones_like(sigmas, dtype=torch.bool)
    kept[1:] = sigmas.diff() != 0
    if not bool(kept.all()):
        logging.info("fewstep: %d sigmas repeat the one before and are left out.", int((~kept).sum()))
    return sigmas[kept]
