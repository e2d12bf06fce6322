"""FewStepScheduler: its settings, and the reading of other schedulers' settings."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from diffusers.configuration_utils import register_to_config
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers
from diffusers.utils import DummyObject

from fewstep.checks import real, whole
from fewstep.errors import InputError, unknown_name
from fewstep.executor import checked_seeds
from fewstep.integrations.diffusers.config import FOR_PIPELINES, adopted
from fewstep.integrations.diffusers.formulation import alphas_cumprod_of, formulation_of
from fewstep.integrations.diffusers.limit import limit_of
from fewstep.integrations.diffusers.placement import check_placement
from fewstep.integrations.diffusers.recipe import DECIDED, RecipeSolver, process_settings
from fewstep.integrations.diffusers.run import ScheduledRun
from fewstep.integrations.diffusers.settings import as_kinds, several
from fewstep.integrations.diffusers.solver import solver_of
from fewstep.integrations.diffusers.timetable import training_timesteps
from fewstep.processes.base import on_host
from fewstep.recipe import Recipe, load_recipe
from fewstep.time_grid import TimeGrid

__all__ = ["FewStepScheduler"]

LONGEST = 1_000_000
"""The most training steps."""


class FewStepScheduler(ScheduledRun):
    r"""A scheduler for diffusers pipelines: a fewstep solver on a fewstep grid.

    ``pipe.scheduler = FewStepScheduler.from_config(pipe.scheduler.config, solver="sa", grid="optimized")`` is all
    that changes. The network is called once a step. Coefficients are made in float64 in ``set_timesteps``; the state
    and its history are float32 for half-precision latents; ``step`` waits for nothing, copies nothing between
    devices (but for the noise of a generator that lives on another one), and has no gradient.

    Equals, on the same sigmas: ``solver="unipc"`` diffusers' UniPCMultistepScheduler, ``"dpmpp"`` its
    DPMSolverMultistepScheduler (at order 3 with fewer than 15 steps); every solver the same one in ``fs.sample``.

    Args:
        num_train_timesteps, beta_start, beta_end, beta_schedule, trained_betas, rescale_betas_zero_snr,
            snr_shift_scale: the training process, as everywhere in diffusers.
        prediction_type: "epsilon", "sample", "v_prediction" or "flow_prediction".
        variance_type: "learned" or "learned_range" for a network that puts out a variance too: it is cut off.
        solver: "unipc", "dpmpp", "sa" (the few-step form of SA-Solver), "deis", "ddim", "euler", or any other
            registered solver of one call a step; or one with its settings, as "unipc:order=3,variant=bh1".
        solver_order: predictions that a step looks at; of no effect in "ddim" and "euler".
        corrector_order: for "sa" the corrector's nodes, the new one included (None: ``solver_order``); 0 switches
            the corrector of "sa" and "unipc" off.
        solver_type: "bh1" or "bh2": UniPC's published variants; "exact": the pure polynomial form of "unipc" and
            "dpmpp".
        disable_corrector: numbers of the intervals that are not corrected.
        lower_order_final: whether the order falls at the end.
        tau: the noise of "sa": 0 is the ODE, 1 the standard SDE; or a preset's name (see ``fs.tau.preset``).
        tau_window: (low, high) in σ/α; outside of it τ is 0.
        eta: the noise of "ddim", from 0 to 1.
        seed: image b of a pipeline that passes no generator draws the noise of its steps from ``seed + b``.
        grid: where the steps are: "simple" (what UniPC takes from this configuration, or what the pipeline passes),
            "optimized" (above 60 steps "uniform_logsnr"), "uniform_logsnr", "uniform_time", "karras", "exponential",
            "beta", "trailing", "leading", "linspace", or any other registered grid, with its settings if needed,
            as "karras:rho=5"; or a list of the times of one ``fs.TimeGrid``.
        error_power: p of the published bound that "optimized" then minimises; None: the predicted error on pixels'
            spectrum. Networks in latent space take "optimized:spectrum=latents,floor=0.0045".
        integer_timesteps: move every step to where the network is fed a whole number, σ with it; for networks
            that look their time up. By default timesteps may be fractional.
        thresholding, dynamic_thresholding_ratio, sample_max_value: Imagen's dynamic thresholding of x0.
        clip_sample, clip_sample_range: x0 clamped to ± the range.
        use_karras_sigmas, use_exponential_sigmas, use_beta_sigmas, use_lu_lambdas, timestep_spacing, steps_offset:
            the grid of ``grid="simple"``.
        final_sigmas_type: "zero", or "sigma_min": end at the smallest training level.
        use_flow_sigmas: a flow; so is every network with flow prediction, for which it need not be set. (Flux's
            pipeline keeps its sigmas, the user's too, to itself where it is.)
        flow_shift, use_dynamic_shifting, time_shift_type, shift_terminal, invert_sigmas: the levels of a flow;
            dynamic shifting takes ``mu`` from the pipeline.
        recipe: a recipe or its JSON object, which then decides solver and grid; see ``from_recipe``.
        sigma_data, sigma_min, sigma_max, sigma_schedule, rho: an EDM-preconditioned network, if ``sigma_data`` is
            given, and its levels. Of a flow sigma_min and sigma_max are the ends of Karras' levels in σ/α.
        noise_conditioning: what an EDM network is fed: "log", ¼·log σ, or "atan", 2·atan(σ)/π (Stable Audio).

    Raises:
        InputError: if a setting is unknown or out of its range.
    """

    __module__ = "fewstep.integrations.diffusers"
    _compatibles = [e.name for e in KarrasDiffusionSchedulers]

    @register_to_config
    @on_host
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 0.0001,
        beta_end: float = 0.02,
        beta_schedule: str = "linear",
        trained_betas: np.ndarray | list[float] | None = None,
        prediction_type: Literal["epsilon", "sample", "v_prediction", "flow_prediction"] = "epsilon",
        variance_type: str | None = None,
        solver: str = "unipc",
        solver_order: int = 2,
        corrector_order: int | None = None,
        solver_type: str = "bh2",
        disable_corrector: Sequence[int] = (),
        lower_order_final: bool = True,
        tau: float | str = 1.0,
        tau_window: Sequence[float] | None = None,
        eta: float = 0.0,
        seed: int = 0,
        grid: str | Sequence[float] = "simple",
        error_power: float | None = None,
        integer_timesteps: bool = False,
        thresholding: bool = False,
        dynamic_thresholding_ratio: float = 0.995,
        sample_max_value: float = 1.0,
        clip_sample: bool = False,
        clip_sample_range: float = 1.0,
        use_karras_sigmas: bool = False,
        use_exponential_sigmas: bool = False,
        use_beta_sigmas: bool = False,
        use_lu_lambdas: bool = False,
        timestep_spacing: str = "linspace",
        steps_offset: int = 0,
        final_sigmas_type: Literal["zero", "sigma_min"] = "zero",
        use_flow_sigmas: bool = False,
        flow_shift: float = 1.0,
        use_dynamic_shifting: bool = False,
        time_shift_type: Literal["exponential", "linear"] = "exponential",
        shift_terminal: float | None = None,
        invert_sigmas: bool = False,
        rescale_betas_zero_snr: bool = False,
        snr_shift_scale: float | None = None,
        sigma_data: float | None = None,
        sigma_min: float | None = None,
        sigma_max: float | None = None,
        sigma_schedule: str = "karras",
        rho: float = 7.0,
        noise_conditioning: str = "log",
        recipe: Recipe | Mapping[str, Any] | None = None,
    ) -> None:
        held = recipe if recipe is None or isinstance(recipe, Recipe) else Recipe.from_dict(recipe)
        self.register_to_config(**as_kinds(self.config, FewStepScheduler.__init__))
        whole("num_train_timesteps", self.config.num_train_timesteps, 1, LONGEST)
        self._settle(held)
        checked_seeds([seed])
        self._held = held
        self._follow(self._current())
        self._formulation = formulation_of(self._settings, self._alphas_cumprod, mu=1.0)
        self.init_noise_sigma = self._formulation.init_noise_sigma
        self.num_inference_steps: int | None = None
        self.timesteps = training_timesteps(self._formulation)
        self.sigmas = self._formulation.level(self._formulation.time(self.timesteps)).to(torch.float32)
        self._restart()

    def _follow(self, settings: Mapping[str, Any]) -> None:
        """Take these settings for the runs to come."""
        check_placement(settings)
        alphas_cumprod = alphas_cumprod_of(settings)
        solver = solver_of(settings) if self._held is None else RecipeSolver(self._held)
        self._settings, self._solver, self._limit = settings, solver, limit_of(settings)
        self._alphas_cumprod = alphas_cumprod
        self.alphas_cumprod = alphas_cumprod.to(torch.float32)
        self.alphas = (alphas_cumprod / torch.cat([torch.ones(1), alphas_cumprod[:-1]])).to(torch.float32)
        self.betas = 1.0 - self.alphas

    def _settle(self, recipe: Recipe | None) -> None:
        """Bring settings that may be written in several ways into one that JSON knows."""
        config = self.config
        settled: dict[str, Any] = {}
        settled["disable_corrector"] = [whole("disable_corrector", n, 0) for n in several(config, "disable_corrector")]
        for name in ("trained_betas", "tau_window"):
            if config[name] is not None:
                settled[name] = [real(name, value) for value in several(config, name)]
        if recipe is not None:
            settled |= {"recipe": recipe.to_dict(), "grid": recipe.plan.times.tolist()}
        elif not isinstance(config.grid, (str, int, float)):
            settled["grid"] = [real("a time of the grid", t) for t in several(config, "grid")]
        if config.solver_type in ("midpoint", "heun", "logrho"):
            settled["solver_type"] = "bh2"
        self.register_to_config(**settled)

    @classmethod
    def _get_compatibles(cls) -> list[type]:
        """Return the compatible classes that can be used here, not those whose packages are missing."""
        return [compatible for compatible in super()._get_compatibles() if not isinstance(compatible, DummyObject)]

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any] | None = None, return_unused_kwargs: bool = False, **kwargs: Any
    ) -> Any:
        """Return a scheduler with the settings of another one's ``config``, and those given besides.

        The config may be of any member of KarrasDiffusionSchedulers, of DDPM, DDIM, PNDM, SASolver, CogVideoX's, the
        EDM ones, or of a flow's (FlowMatchEuler, FlowMatchHeun). A setting that cannot be honoured is warned about. A
        recipe in the config gives way to settings that it would decide.

        Raises:
            InputError: if ``config`` is not a mapping, it is of a process that is not known here, or a setting given
                besides is unknown.
        """
        if not isinstance(config, Mapping):
            raise InputError(f"config is {config!r}: give pipe.scheduler.config; for a folder write from_pretrained.")
        parameters = inspect.signature(cls.__init__).parameters.values()
        defaults = {parameter.name: parameter.default for parameter in parameters if parameter.name != "self"}
        for name in kwargs if not return_unused_kwargs else ():
            if name not in defaults:
                raise unknown_name("setting", name, defaults)
        if config.get("recipe") is not None and "recipe" not in kwargs and not kwargs.keys().isdisjoint(DECIDED):
            config = {key: value for key, value in config.items() if key not in ("recipe", "grid")}
        return super().from_config(adopted(config, kwargs, defaults), return_unused_kwargs, **kwargs)

    @classmethod
    def extract_init_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Return the settings of a configuration; what pipelines alone read is kept, without diffusers' warning."""
        carried = {name: config_dict[name] for name in FOR_PIPELINES if name in config_dict}
        rest = {name: value for name, value in config_dict.items() if name not in carried}
        settings, unused, hidden = super().extract_init_dict(rest, **kwargs)
        return settings, unused, {**hidden, **carried}

    @classmethod
    def from_recipe(
        cls, recipe: Recipe | Path | str, config: Mapping[str, Any] | None = None, **settings: Any
    ) -> FewStepScheduler:
        """Return a scheduler that runs the plan of a recipe of ``fs.calibrate`` or ``fewstep calibrate``.

        Its number of steps is the recipe's; it is saved with the pipeline, recipe and all. Which model the recipe is of
        cannot be seen from here: ``fs.enable(pipe, recipe=…)`` warns of another one.

        Equals: ``fs.execute(recipe, …)`` on the same noise.

        Args:
            recipe: the recipe, or its file.
            config: ``pipe.scheduler.config``, for thresholding and whatever else belongs to the pipeline; without
                it the process and the prediction are the recipe's.
            **settings: further settings of the scheduler.

        Raises:
            InputError: if the file is no recipe, the recipe is of another process than ``config``, or a setting is
                given that the recipe decides.
        """
        for name in settings:
            if name in DECIDED:
                raise InputError(f"{name} is given, but the recipe decides it: leave it out.")
        held = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
        defaults = process_settings(held) if config is None else config
        scheduler = cls.from_config({"_class_name": cls.__name__, **defaults}, recipe=held, **settings)
        scheduler.solver.plan(TimeGrid(scheduler.formulation.process, held.plan.times))
        return scheduler
