"""The scheduler interface that pipelines call: set_timesteps, step, add_noise and the like."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from diffusers import SchedulerMixin
from diffusers.configuration_utils import ConfigMixin
from diffusers.schedulers.scheduling_utils import SchedulerOutput
from torch import Tensor

from fewstep import checks
from fewstep.errors import InputError
from fewstep.executor import Generators, folded, without_last_formula
from fewstep.integrations.diffusers.formulation import Formulation, formulation_of
from fewstep.integrations.diffusers.limit import Limit
from fewstep.integrations.diffusers.noise import StepNoise
from fewstep.integrations.diffusers.stepper import Stepper
from fewstep.integrations.diffusers.timetable import Timetable, Values, timetable_of, untrained
from fewstep.plan import Plan
from fewstep.processes.base import on_host
from fewstep.solvers import Solver
from fewstep.time_grid import TimeGrid

__all__ = ["ScheduledRun", "without_variance"]

MOST = 1_000_000
"""The most steps of a run."""


class ScheduledRun(SchedulerMixin, ConfigMixin):
    """One run of a pipeline after the other: a plan made in ``set_timesteps`` and stepped through by ``step``."""

    order = 1

    timesteps: Tensor
    sigmas: Tensor
    num_inference_steps: int | None
    _settings: Mapping[str, Any]
    _alphas_cumprod: Tensor
    _formulation: Formulation
    _solver: Solver
    _limit: Limit | None
    _timetable: Timetable | None = None
    _plan: Plan | None = None
    _input_scale: Tensor | None = None
    _step_index: int | None = None
    _begin_index: int | None = None
    _stepper: Stepper | None = None
    _lead: int = 0
    _led: bool = False
    _thread: int | None = None
    """The thread that began the run; None for a run that was copied or unpickled, which any may go on with."""

    @property
    def lock(self) -> AbstractContextManager[Any]:
        """The lock of what changes in a run."""
        return self.__dict__.setdefault("_lock", threading.RLock())

    def __getstate__(self) -> dict[str, Any]:
        """Return what is copied and pickled: a lock and a thread belong to this object alone."""
        return {name: value for name, value in vars(self).items() if name not in ("_lock", "_thread")}

    def __len__(self) -> int:
        return self.config.num_train_timesteps

    @property
    def formulation(self) -> Formulation:
        """The process and diffusers' conventions for it."""
        return self._formulation

    @property
    def solver(self) -> Solver:
        """The solver of the settings."""
        return self._solver

    @property
    def grid(self) -> TimeGrid | None:
        """The grid of the last ``set_timesteps``."""
        return None if self._timetable is None else self._timetable.grid

    @property
    def plan(self) -> Plan | None:
        """The plan on that grid: the core's table, as ``fs.execute`` runs it."""
        return self._plan

    @property
    def step_index(self) -> int | None:
        """The number of the next step; None before the first."""
        return self._step_index

    @property
    def begin_index(self) -> int | None:
        """The number of the step to begin with, if ``set_begin_index`` was called."""
        return self._begin_index

    @property
    def level_ahead(self) -> float:
        """σ/α at the network call of the next step.

        Raises:
            InputError: before ``set_timesteps``.
        """
        if self._timetable is None:
            raise InputError("there is no plan yet: call set_timesteps(num_inference_steps) first.")
        index = self._step_index if self._step_index is not None else self._begin_index or 0
        grid = self._timetable.grid
        return float(torch.exp(-grid.half_logsnr[self._lead + index]))

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Begin with this step: image-to-image pipelines leave the first ones out."""
        self._begin_index = checks.whole("begin_index", begin_index, 0)

    @property
    def model_outputs(self) -> list[Tensor | None]:
        """The kept predictions, oldest first, None where there is none yet; assigning to it changes nothing."""
        order = self.config.solver_order
        made = [] if self._stepper is None else self._stepper.history((self._step_index or 0) - self._begun)
        return [*[None] * (order - len(made)), *made[max(0, len(made) - order) :]]

    @model_outputs.setter
    def model_outputs(self, value: Any) -> None:
        pass

    @on_host
    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        timesteps: Values | None = None,
        sigmas: Values | None = None,
        mu: float | None = None,
    ) -> None:
        """Make the grid and the plan of the next run.

        Args:
            num_inference_steps: the number of steps, where no list is given.
            device: where ``timesteps`` goes.
            timesteps: what the network is to be fed, falling in noise; σ follows from it.
            sigmas: the levels instead, in diffusers' sense: σ/α, or a flow's σ before its shift; a 0 at the end may be
                there or not. Given together with ``timesteps`` they need not belong to them. A flow pipeline's own
                1, 1 − 1/n, …, 1/n leave the placement to the setting ``grid``.
            mu: the shift, under ``use_dynamic_shifting``.

        Raises:
            InputError: if nothing is given, lists repeat a level or do not agree, ``mu`` is missing, or the solver's
                plan does not call the network once a step.
        """
        if num_inference_steps is not None:
            num_inference_steps = checks.whole("num_inference_steps", num_inference_steps, 1, MOST)
        place = None if device is None else checks.device("device", device, meta=True)
        mu = None if mu is None else checks.real("mu", mu)
        self._follow_config()
        formulation = formulation_of(self._settings, self._alphas_cumprod, mu)
        table = timetable_of(formulation, self._settings, self._solver, num_inference_steps, timesteps, sigmas)
        plan = self._solver.plan(table.grid)
        lead = _lead(plan)  # A plan that cannot be stepped is refused here, not in the first step.
        scale = formulation.input_scale(table.grid.times[lead:-1])
        with self.lock:
            self._timetable, self._formulation, self._plan, self._lead = table, formulation, plan, lead
            self._input_scale = None if scale is None else scale.to(torch.float32).to(place)
            self.timesteps, self.sigmas = table.timesteps[lead:].to(place), table.sigmas[lead:]
            self.num_inference_steps = len(self.timesteps)
            self._restart()
            self._thread = threading.get_ident()

    def _current(self) -> dict[str, Any]:
        """Return the settings as attributes of ``config`` have them, where people change them."""
        return {name: getattr(self.config, name, value) for name, value in self.config.items()}

    def _follow_config(self) -> None:
        """Take over what was assigned to an attribute of ``config``, as the schedulers of diffusers do."""
        settings = self._current()
        if settings != self._settings:
            self._follow(settings)

    def _follow(self, settings: Mapping[str, Any]) -> None:
        raise NotImplementedError

    def _restart(self) -> None:
        self._step_index = self._begin_index = self._stepper = None
        self._begun = 0
        self._led = False
        self._noise = StepNoise(self.config.seed)

    def index_for_timestep(self, timestep: float | Tensor, schedule_timesteps: Tensor | None = None) -> int:
        """Return the number of the step whose timestep is nearest."""
        schedule = self.timesteps if schedule_timesteps is None else schedule_timesteps
        given = _as_timesteps(timestep)
        if given.is_meta and not schedule.is_meta:
            raise InputError("the timestep lies on the meta device: give one of scheduler.timesteps.")
        value = given.to(schedule.device)[0]
        return int((schedule.to(torch.float32) - value.to(torch.float32)).abs().argmin())

    def scale_model_input(
        self, sample: Tensor, timestep: float | Tensor | None = None, *args: Any, **kwargs: Any
    ) -> Tensor:
        """Return what the network is to be given for ``sample``: a copy of it, for EDM networks c_in·sample."""
        _check_samples(sample=sample)
        if torch.compiler.is_compiling():
            return self._scaled(sample, timestep)
        with self.lock:
            self._check_thread()
            return self._scaled(sample, timestep)

    def _check_thread(self) -> None:
        """Refuse a thread whose run another one has replaced."""
        if self._thread not in (None, threading.get_ident()):
            raise InputError(
                "this run was begun by another thread, which called set_timesteps: two threads need a pipeline each, "
                "or a scheduler each; one that goes on with another's run calls set_timesteps first."
            )

    def _scaled(self, sample: Tensor, timestep: float | Tensor | None) -> Tensor:
        index = self._upcoming(timestep) if self._lead or self._input_scale is not None else 0
        if self._lead and index == 0:
            sample, self._led = self._stepper_from(0, sample).lead(sample), True
        if self._input_scale is None:
            return sample.clone()  # The network may write into it.
        return sample * self._input_scale[index]

    def step(
        self,
        model_output: Tensor,
        timestep: float | Tensor,
        sample: Tensor,
        generator: Generators | None = None,
        return_dict: bool = True,
        *,
        eta: float = 0.0,
        use_clipped_model_output: bool | None = None,
        per_token_timesteps: Tensor | None = None,
    ) -> SchedulerOutput | tuple[Tensor, ...]:
        """Return the sample at the end of this step.

        Args:
            model_output: the network's output for ``sample``.
            timestep: read in the first call of a run only, which it starts at, unless a begin index is set.
            sample: the current sample; a pipeline may have changed it since the last step.
            generator: where the noise of a stochastic solver comes from, or one generator for each image; without
                one it is the setting ``seed``.
            return_dict: whether to return a ``SchedulerOutput``, or a tuple.
            eta: what pipelines pass for DDIM's sake; the setting ``eta`` decides, with a warning if they differ.
            use_clipped_model_output: as above; only None and False.
            per_token_timesteps: what LTX's pipeline for conditions passes; only None.

        Raises:
            InputError: before ``set_timesteps``, after the last step, if the shape changes during a run, if another
                thread has called ``set_timesteps`` meanwhile, or for what is not understood.
        """
        _check_samples(model_output=model_output, sample=sample)
        eta = checks.real("eta", eta)
        checks.flag("return_dict", return_dict)
        if use_clipped_model_output is not None:
            checks.flag("use_clipped_model_output", use_clipped_model_output)
        if eta not in (0.0, self.config.eta):
            message = f"eta={eta!r} is not used: write FewStepScheduler(solver='ddim', eta={eta!r})."
            warnings.warn(message, UserWarning, stacklevel=2)
        if use_clipped_model_output or per_token_timesteps is not None:
            given = "use_clipped_model_output=True" if use_clipped_model_output else "per_token_timesteps"
            raise InputError(f"{given} is not supported: leave it out, or keep the pipeline's scheduler.")
        following = self._stepped(model_output, timestep, sample, generator)
        if return_dict:
            return SchedulerOutput(prev_sample=following)
        if len(self.timesteps) > 1:
            return (following,)
        assert self._plan is not None
        if self._plan.fitted or self._lead:  # Pipelines of one step take x0, in the second place, for the sample.
            return following, following
        return following, self._x0(model_output, sample)

    @torch.no_grad()
    def _x0(self, model_output: Tensor, sample: Tensor) -> Tensor:
        """Return x0 of a run's first step."""
        assert self._timetable is not None
        state, output = self._formulation.x0_from(self._timetable.grid.times[0]).tolist()
        if model_output.shape != sample.shape:
            model_output = without_variance(model_output, sample)
        x0 = state * sample.to(torch.float32) + output * model_output
        return (x0 if self._limit is None else self._limit(sample)(x0)).to(sample.dtype)

    @torch.compiler.disable
    @torch.no_grad()
    def _stepped(
        self, model_output: Tensor, timestep: float | Tensor, sample: Tensor, generator: Generators | None
    ) -> Tensor:
        """Return the next sample: a few prepared kernels, with nothing in them for a compiler to gain."""
        with self.lock:
            return self._next(model_output, timestep, sample, generator)

    def _next(
        self, model_output: Tensor, timestep: float | Tensor, sample: Tensor, generator: Generators | None
    ) -> Tensor:
        if self._plan is None or self._timetable is None:
            raise InputError("there is no plan yet: call set_timesteps(num_inference_steps) before step.")
        self._check_thread()
        index = self._upcoming(timestep)
        if index >= len(self.timesteps):
            raise InputError(
                f"step was called once more than the {len(self.timesteps)} steps of this run: call set_timesteps "
                "before another one; two threads need a pipeline each."
            )
        if self._stepper is None:
            self._begun = index
            level = float(self._timetable.grid.times[index]) if index else None
            self._noise = StepNoise(self.config.seed, level)
            self._stepper = self._stepper_from(index, sample)
            if self._lead:
                sample = self._begin_led(self._stepper, sample)
        stepper = self._stepper
        if sample.shape != stepper.shape or sample.device != stepper.device:
            raise InputError(
                f"the sample is {tuple(sample.shape)} on {sample.device}, the run began with "
                f"{tuple(stepper.shape)} on {stepper.device}: call set_timesteps before another run; two threads need "
                "a pipeline each."
            )
        if model_output.shape != sample.shape:
            model_output = without_variance(model_output, sample)
        following = stepper.step(
            index - self._begun, model_output, sample, lambda row: self._noise.fill(row, generator)
        )
        self._step_index = index + 1
        if self._step_index == len(self.timesteps):
            self._stepper = None  # The memory is free before the decoder needs it.
        return following

    def _upcoming(self, timestep: float | Tensor | None) -> int:
        if self._step_index is not None:
            return self._step_index
        if self._begin_index is not None:
            return self._begin_index
        if timestep is None:
            raise InputError("timestep is None: give one of scheduler.timesteps.")
        return self.index_for_timestep(timestep)

    @on_host
    def _stepper_from(self, index: int, sample: Tensor) -> Stepper:
        """Return the stepper of the run that begins with step ``index``: a later start warms up anew."""
        assert self._plan is not None and self._timetable is not None
        grid, plan = self._timetable.grid, self._plan
        if index:
            plan = self._solver.plan(TimeGrid(grid.process, grid.times[index:]))
        plan, last = without_last_formula(plan)
        plan = folded(plan, uncorrected=[n - index for n in self.config.disable_corrector])
        x0_from = self._formulation.x0_from(plan.call_times)
        limit = None if self._limit is None else self._limit(sample)
        return Stepper(plan, x0_from, sample, limit, last)

    def _begin_led(self, stepper: Stepper, sample: Tensor) -> Tensor:
        """Return the sample of the first call, which the network has been given by ``scale_model_input``."""
        if not self._led:
            raise InputError(
                "the recipe's first predictions are formulas, and this pipeline does not ask the scheduler what the "
                "network is to be given: calibrate with analytic='last' for it."
            )
        return stepper.lead(sample)

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return α·x + σ·ε at the times at which the network is fed ``timesteps``, one for each sample or for all.

        Raises:
            InputError: if a timestep lies beyond those that the network was trained on.
        """
        _check_samples(original_samples=original_samples, noise=noise)
        timesteps = _as_timesteps(timesteps)
        try:
            torch.broadcast_shapes(noise.shape, original_samples.shape)
        except RuntimeError as error:
            raise InputError(
                f"noise is {tuple(noise.shape)}, the samples are {tuple(original_samples.shape)}: give noise like them."
            ) from error
        if len(timesteps) not in (1, len(noise), len(original_samples)):
            raise InputError(
                f"there are {len(timesteps)} timesteps for {len(noise)} noises: give one for each or for all."
            )
        if timesteps.device.type == "mps":
            timesteps = timesteps.cpu()
        if self._timetable is None:
            t = self._formulation.time(timesteps)
        else:
            t = self._timetable.times_of(timesteps)
        process, shape = self._formulation.process, (-1, *[1] * (original_samples.ndim - 1))
        self._check_trained(timesteps, t)
        alpha, sigma = (x.to(torch.float32).to(original_samples.device) for x in (process.alpha(t), process.sigma(t)))
        noisy = alpha.view(shape) * original_samples + sigma.view(shape) * noise
        return noisy.to(original_samples.dtype)

    def _check_trained(self, timesteps: Tensor, t: Tensor) -> None:
        """Refuse timesteps on the host beyond those that the network was trained on; a device is not waited for."""
        if torch.compiler.is_compiling() or t.device.type != "cpu":
            return
        process = self._formulation.process
        if not bool((torch.isfinite(t) & (t >= 0.0) & (t <= process.t_limit * (1 + 1e-6))).all()):
            raise untrained(self._formulation, timesteps)

    def scale_noise(self, sample: Tensor, timestep: float | Tensor, noise: Tensor) -> Tensor:
        """Return ``add_noise(sample, noise, timestep)``: what flow pipelines call."""
        return self.add_noise(sample, noise, checks.as_given(timestep))


def _check_samples(**given: Any) -> None:
    """Refuse what are no tensors of numbers; nothing is read from a device."""
    for name, value in given.items():
        if not checks.computable(value):
            place = f" on {value.device}" if isinstance(value, Tensor) else ""
            what = f"{checks.described(value)}{place}"
            raise InputError(f"{name} is {what}: give a tensor [n, …] of real numbers.")


def _as_timesteps(value: Any) -> Tensor:
    """Return a timestep or several as a tensor [n], on the host if they are not on a device.

    Raises:
        InputError: if they are no numbers, or none.
    """
    try:
        made = checks.as_given(value)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise InputError(f"the timestep is {checks.shown(value)}: give one of scheduler.timesteps.") from error
    if not made.numel():
        raise InputError(
            "there is no timestep: a pipeline's strength leaves out the first steps, and none is left; give a higher "
            "strength or more steps."
        )
    if made.is_complex() or made.dtype == torch.bool:
        raise InputError(f"the timestep is {checks.shown(value)}: give one of scheduler.timesteps.")
    return made.reshape(-1)


def _lead(plan: Plan) -> int:
    """Return how many steps come before the first network call of a plan that can be stepped."""
    if plan.by_class:
        raise InputError(
            "the recipe's formulas have a mean for each class, and a pipeline does not tell its scheduler the classes: "
            "calibrate with analytic='last' for it, or sample with fs.execute."
        )
    plan = folded(without_last_formula(plan)[0])
    if not bool(plan.evaluate.any()):
        raise InputError("the plan does not call the network: give more steps, or a solver without analytic_first.")
    lead = int(plan.evaluate.to(torch.int64).argmax())
    if not bool(plan.evaluate[lead:].all()):
        raise InputError(
            "the plan has formulas between network calls: a pipeline can run them only before the first and "
            "after the last."
        )
    if bool((plan.noise_scale[:lead] != 0).any()):
        raise InputError("the plan adds noise before its first network call: a pipeline cannot; take fs.sample.")
    return lead


def without_variance(model_output: Tensor, sample: Tensor) -> Tensor:
    """Return the half of the output that is not the learned variance."""
    if sample.ndim < 2 or model_output.shape != (len(sample), 2 * sample.shape[1], *sample.shape[2:]):
        raise InputError(f"the network's output is {tuple(model_output.shape)}, the sample {tuple(sample.shape)}.")
    return model_output[:, : sample.shape[1]]
