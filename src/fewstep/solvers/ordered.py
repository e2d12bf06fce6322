"""Multistep methods whose order is chosen for each step, by hand or with the time steps."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fewstep.checks import as_integer, shown, whole
from fewstep.errors import InputError
from fewstep.grids.bound import Bound, ErrorPower
from fewstep.grids.heuristic import End, Start, checked_steps
from fewstep.grids.optimized import Objective, OptimizedGrid, optimized
from fewstep.grids.spectral import SpectralError
from fewstep.processes import Process
from fewstep.solvers.adams import Coefficients, Intervals
from fewstep.solvers.multistep import MultistepSolver, Schedule
from fewstep.solvers.registry import named
from fewstep.spectra import Spectrum
from fewstep.spectra import named as named_spectrum
from fewstep.time_grid import TimeGrid

__all__ = ["Ordered", "optimized_orders", "patterns"]

KEPT = 4
"""The patterns whose grids are optimised in a round: those of the least bounds on the grid of the round before."""
ROUNDS = 3
LONGEST = 20
"""The most steps whose orders are searched: there are a few thousand patterns of so many."""


@dataclass(frozen=True)
class Ordered(MultistepSolver):
    """A multistep solver with an order for each step in place of its rule 1, 2, 3, …, 3, 2, 1.

    Rows are those of ``solver`` at these orders. An order is at most the number of predictions that there are, and 1 in
    an interval to the noise-free end. Correctors of a step have at most one node more than its predictor. It is of one
    number of steps, so it has no name on the command line.

    Equals: with the orders that ``solver`` takes itself, UniPC's or DPM-Solver++'s on the same number of steps.

    Args:
        solver: a multistep solver, or its name.
        orders: an order for each step, (1, 2, 3, 2), or their digits, 1232, as which they are kept; each at most the
            solver's own.

    Raises:
        InputError: if the solver is no multistep method, or an order is none of its orders; for a grid, if it has
            another number of steps.
    """

    solver: MultistepSolver | str
    orders: Sequence[int] | int

    def __post_init__(self) -> None:
        """Check the settings."""
        inner = self.inner
        most = _order(inner)
        chosen = self.orders
        if not isinstance(chosen, Sequence) or isinstance(chosen, (str, bytes)):
            number = as_integer(chosen)
            if number is None or number < 1:
                raise InputError(f"orders is {shown(chosen)}: give one for each step, as (1, 2, 3, 2) or 1232.")
            chosen = [int(digit) for digit in str(number)]
        digits = "".join(str(whole("an order", order, 1, most)) for order in chosen)
        if not digits:
            raise InputError("orders is empty: give one for each step, as (1, 2, 3, 2).")
        object.__setattr__(self, "orders", int(digits))

    @property
    def inner(self) -> MultistepSolver:
        """The solver whose rows are taken."""
        solver = named(self.solver)
        if not isinstance(solver, MultistepSolver) or isinstance(solver, Ordered):
            raise InputError(f"solver is {shown(self.solver)}: give a multistep one, such as fs.UniPC(3).")
        return solver

    def schedule(self, grid: TimeGrid) -> Schedule:
        """Return the solver's schedule with these orders."""
        orders = tuple(map(int, str(self.orders)))
        if len(orders) != grid.steps:
            raise InputError(f"there are {len(orders)} orders for {grid.steps} steps: give one for each.")
        own = self.inner.schedule(grid)
        nodes = own.corrector_nodes
        return _Chosen(
            order=own.order,
            corrector_nodes=None if nodes is None else lambda order: min(nodes(order), order + 1),
            lower_order_final=False,
            mode=own.mode,
            corrects_last=own.corrects_last,
            prediction=own.prediction,
            tau=own.tau,
            orders=orders,
        )

    def predict(self, intervals: Intervals, order: int) -> Coefficients:
        """Return the solver's own rows."""
        return self.inner.predict(intervals, order)

    def correct(self, intervals: Intervals, nodes: int) -> Coefficients:
        """Return the solver's own rows."""
        return self.inner.correct(intervals, nodes)

    def __repr__(self) -> str:
        return f"Ordered({self.inner!r}, {self.orders})"


@dataclass(frozen=True)
class _Chosen(Schedule):
    """Orders by the number of the step."""

    orders: tuple[int, ...] = ()

    def predictor_order(self, n: int, grid: TimeGrid) -> int:
        if grid.ends_at_zero and n == grid.steps - 1:
            return 1
        return min(self.orders[n], self.usable(n, grid))


def patterns(steps: int, most: int) -> Iterator[tuple[int, ...]]:
    """Yield the orders of ``steps`` steps that rise from 1 by 0 or 1 a step, up to ``most``, and then fall likewise."""
    for ups in range(min(most, steps)):
        for rises in itertools.combinations(range(1, steps), ups):
            after = rises[-1] + 1 if rises else 1
            for downs in range(ups + 1):
                for falls in itertools.combinations(range(after, steps), downs):
                    order, made = 1, []
                    for n in range(steps):
                        order += (n in rises) - (n in falls)
                        made.append(order)
                    yield tuple(made)


def optimized_orders(
    process: Process,
    solver: MultistepSolver | str,
    steps: int,
    *,
    objective: Objective = "spectrum",
    spectrum: Spectrum | str | None = None,
    error_power: ErrorPower | None = None,
    start: Start = None,
    end: End = None,
) -> tuple[Ordered, OptimizedGrid]:
    r"""Return the solver with the orders, and the grid, of the least predicted error that a search finds.

    Orders rise from 1 to at most the solver's and then fall, a step at a time. The error of every pattern is predicted
    on the best grid so far; the grids of the best four are optimised, and so on until nothing is gained. The result is
    never above that of the solver's own orders on their optimised grid.

    The published bound (``objective="bound"``) knows nothing of the error that a polynomial makes, only of what becomes
    of the network's: it is least at order 1 throughout, which samples worse. Its source fixes the orders to 1, 2, 3, …,
    3, 2, 1 for that reason. The error on a spectrum knows both.

    Source: of the bound, Xue et al. (arXiv 2402.17376).

    Args:
        process: the noising process.
        solver: a multistep solver, or its name.
        steps: the number of intervals, at most 20.
        objective: "spectrum" or "bound", as for ``fs.grids.optimized``.
        spectrum: of the data, likewise.
        error_power: of a bound, likewise.
        start: as in the heuristic grids.
        end: as in the heuristic grids.

    Raises:
        InputError: as ``fs.grids.optimized``, and for more steps, or a solver that is no multistep method.
    """
    steps = checked_steps(steps)
    if steps > LONGEST:
        raise InputError(f"steps is {steps}: orders are searched for at most {LONGEST}.")
    inner = Ordered(solver, (1,)).inner

    def grid_for(chosen: MultistepSolver) -> OptimizedGrid:
        return optimized(
            process,
            chosen,
            steps,
            objective=objective,
            spectrum=spectrum,
            error_power=error_power,
            start=start,
            end=end,
        )

    def error(orders: tuple[int, ...], grid: TimeGrid) -> float:
        chosen = Ordered(inner, orders)
        if objective == "bound":
            power = 1 if error_power is None else error_power
            return float(Bound(process, chosen, power, to_zero=grid.ends_at_zero)(grid.times[None])[0])
        data = named_spectrum("pixels" if spectrum is None else spectrum)
        return float(SpectralError(process, chosen, data)(grid.times[None])[0])

    best_grid = grid_for(inner)
    own = inner.schedule(best_grid)
    orders = tuple(own.predictor_order(n, best_grid) for n in range(steps))
    best, tried = Ordered(inner, orders), {orders}
    least = min(best_grid.report.after, error(orders, best_grid))
    known = list(patterns(steps, _order(inner)))
    for _ in range(ROUNDS):
        left = sorted((one for one in known if one not in tried), key=lambda one: error(one, best_grid))
        gained = False
        for one in left[:KEPT]:
            tried.add(one)
            grid = grid_for(Ordered(inner, one))
            if grid.report.after < least:
                best, best_grid, least, gained = Ordered(inner, one), grid, grid.report.after, True
        if not gained:
            break
    return best, best_grid


def _order(solver: MultistepSolver) -> int:
    """Return the largest order of a multistep solver."""
    return int(getattr(solver, "order", 0) or getattr(solver, "predictor_order", 0) or 1)
