"""The contract of a solver."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from inspect import Parameter, signature
from typing import Any, ClassVar, TypeVar, final

from fewstep.analytic import AnalyticPrediction
from fewstep.checks import flag, shown, whole
from fewstep.errors import InputError, unknown_name
from fewstep.plan import Plan
from fewstep.processes.base import on_host
from fewstep.processes.spec import register
from fewstep.time_grid import TimeGrid, as_grid

__all__ = ["NAMES", "Solver", "as_solver", "check_order"]

Made = TypeVar("Made", bound="Solver")

NAMES: dict[str, type[Solver]] = {}
"""The solvers by name, as the command line, the scheduler and the contract tests know them."""


@dataclass(frozen=True, repr=False)
class Solver(ABC):
    r"""A training-free sampler: it looks at a time grid and writes a plan.

    A new solver is a subclass with one method, ``table``; for multistep methods derive from
    ``MultistepSolver``, which asks for coefficients alone. A class with a ``name`` registers itself when it is defined:
    ``fewstep sample --solver my-euler``, ``FewStepScheduler(solver="my-euler")`` and ``fs.solvers.named("my-euler")``
    know it from then on. A class that defines no ``name``, even if it inherits one, is used as an object only.

    What a subclass must keep:

    1. ``table`` returns a ``Plan`` on the grid it was given, with at least one row an interval.
    2. It depends on the grid and the solver's settings alone. A solver knows no images, devices, dtypes, guidance or
       seeds, and draws no noise: it writes down how much.
    3. It accepts batches of grids, times [..., N + 1], and returns one plan with coefficients [..., R]: index from the
       right, ``grid.alpha[..., 1:]``. The optimiser of time steps relies on it.
    4. Coefficients are float64.
    5. Settings are the arguments of ``__init__``; a frozen dataclass gives equality, a hash and ``repr``, by which
       grids are cached and plans described. A wrong setting raises ``InputError`` when the solver is made.

    What it may rely on:

    1. ``plan`` has checked that the grid is a ``TimeGrid``: λ rises strictly along it.
    2. Tensors made in ``table`` are on the host, whatever ``torch.set_default_device`` says.
    3. λ is finite but at two places: ∞ at a last time of 0 (``grid.ends_at_zero``: σ = 0, α = 1) and −∞ at a first time
       with α = 0 (``grid.starts_at_pure_noise``). All grids of a batch have the same ends.
    4. The plan refuses a table that is wrong: coefficients that are not finite, rows that look at predictions not made
       yet, rows that do not reproduce a constant data prediction (state_weight·α_s + Σ history_weights = α_t).
    """

    analytic_first: bool = field(default=False, kw_only=True, repr=False)
    """Whether the first prediction is that of Gaussian data with the process's ``sigma_data``, in place of a call."""

    name: ClassVar[str] = ""
    """The solver's name in text: lower-case letters, digits, "-" and "_"."""

    def __init_subclass__(cls, **settings: Any) -> None:
        super().__init_subclass__(**settings)
        if "plan" in vars(cls):
            raise InputError(f"{cls.__name__} defines plan(grid), which every solver has: call the method table(grid).")
        if vars(cls).get("name"):
            register("solver", cls.name, cls, NAMES)

    def __new__(cls: type[Made], *args: Any, **settings: Any) -> Made:
        """Refuse settings that the solver does not have, with the names of those that it has."""
        bare = cls.__init__ is object.__init__
        parameters = {} if bare else dict(signature(cls.__init__).parameters)
        parameters.pop("self", None)
        if not any(p.kind is Parameter.VAR_KEYWORD for p in parameters.values()):
            for key in settings:
                if key not in parameters:
                    raise unknown_name(f"setting of {cls.__name__}", key, parameters)
        given = [*zip(parameters, args, strict=False), *settings.items()]
        for key, value in given:
            if key in parameters and isinstance(parameters[key].default, bool):
                flag(key, value)
        return super().__new__(cls)

    @final
    @on_host
    def plan(self, grid: TimeGrid) -> Plan:
        """Return the plan for ``grid``; a batch of grids gives a batch of plans.

        Raises:
            InputError: if ``grid`` is no ``TimeGrid``, or one that the solver cannot use.
        """
        made = self.table(as_grid(grid))
        if not isinstance(made, Plan):
            raise InputError(f"{type(self).__name__}.table returned {type(made).__name__}: return an fs.Plan.")
        made = made if made.solver else replace(made, solver=repr(self))
        return _with_analytic_first(made) if self.analytic_first else made

    @abstractmethod
    def table(self, grid: TimeGrid) -> Plan:
        """Return the rows as a plan on ``grid``: what a subclass writes, and ``plan`` calls."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


def _with_analytic_first(plan: Plan) -> Plan:
    """Return the plan with a formula in place of its first call, N − 1 calls in N steps of one call.

    Source: the analytic first step of Dockhorn et al., GENIE (arXiv 2210.05475), here with the variance of the data.
    """
    formula = AnalyticPrediction.gaussian(plan.process, plan.times[..., 0], plan.process.sigma_data)
    evaluate = plan.evaluate.clone()
    evaluate[0] = False
    solver = f"{plan.solver}, first prediction analytic"
    return replace(plan, evaluate=evaluate, analytic=(formula, *[None] * (len(evaluate) - 1)), solver=solver)


def as_solver(value: Any) -> Solver:
    """Return ``value`` if it is a solver.

    Raises:
        InputError: if it is not.
    """
    if not isinstance(value, Solver):
        raise InputError(f"solver is {shown(value)}: give one such as fs.UniPC().")
    return value


def check_order(name: str, order: int, low: int, high: int) -> None:
    """Raise ``InputError`` unless ``order`` is a whole number from ``low`` to ``high``."""
    whole(name, order, low, high)
