"""The heuristic grids: even in λ, in time, in √time, Karras et al.'s, and the one that ends early."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from fewstep.checks import as_real, real, shown, whole
from fewstep.errors import InputError
from fewstep.grids.registry import registered
from fewstep.processes import Process
from fewstep.processes.base import as_process
from fewstep.time_grid import TimeGrid

__all__ = [
    "End",
    "Start",
    "beginning",
    "checked_boundary",
    "checked_steps",
    "early_end",
    "karras",
    "quadratic_time",
    "span",
    "uniform_logsnr",
    "uniform_time",
]

End = float | Literal["zero"] | None
"""Where a grid ends: a time, "zero" (a last interval from t_min to the noise-free end), or the default, None."""
MOST = 10_000
"""The most steps of a grid."""
Start = float | Literal["noise"] | None
"""Where a grid starts: a time (image-to-image, a second stage), "noise" (where α = 0: a flow's t = 1), or t_max."""


@registered
def uniform_logsnr(
    process: Process,
    steps: int,
    *,
    power: float = 1.0,
    start: Start = None,
    end: End = None,
    boundary: float | None = None,
) -> TimeGrid:
    """Return the grid that is even in λ = log(α/σ) (Lu et al., DPM-Solver, arXiv 2206.00927).

    With a ``power`` p it is even in (λ − λ_start)^{1/p}, so that for p above 1 steps are shorter at the noise, as the
    "logSNR" steps of SA-Solver's public code (arXiv 2309.05019) with that order.

    Where λ is −∞ at the start, here and for ``karras``, the first interval is longer: the times are those from t_max,
    and the first of them is moved to the start.

    A ``boundary`` is a time at which one network gives way to another, as Wan 2.2's two experts: it is one of the inner
    times, on both sides of which the grid is even.

    Raises:
        InputError: as all grids here: for ``steps`` below 1, or a ``start`` or ``end`` that is no time of the process,
            or a start that is not noisier than the end, or a ``boundary`` that is not between them; here and for
            ``karras`` also if ``end`` is 0, where λ is infinite: write "zero"; and for a ``power`` that is not
            positive.
    """
    process, power = as_process(process), _power(power)
    if power == 1.0:
        return _spaced(process, steps, start, end, process.half_logsnr, process.time, boundary, reaches_zero=False)
    first = process.half_logsnr(beginning(process, start, span(process, end)[0]))
    first = first if bool(torch.isfinite(first)) else process.half_logsnr(process.t_max)
    return _spaced(
        process,
        steps,
        start,
        end,
        lambda t: (process.half_logsnr(t) - first).clamp(min=0.0) ** (1.0 / power),
        lambda root: process.time(first + root**power),
        boundary,
        reaches_zero=False,
    )


@registered
def uniform_time(
    process: Process,
    steps: int,
    *,
    power: float = 1.0,
    start: Start = None,
    end: End = None,
    boundary: float | None = None,
) -> TimeGrid:
    """Return the grid that is even in time (in the clock before the shift, for a flow), as DDIM's.

    With a ``power`` p it is even in t^{1/p}, so that for p above 1 steps are shorter at the data, as the "time" steps
    of SA-Solver's public code (arXiv 2309.05019) with that order; p = 2 is ``quadratic_time``.

    Raises:
        InputError: as ``uniform_logsnr``, but that ``end`` may be 0.
    """
    process, power = as_process(process), _power(power)
    return _spaced(
        process,
        steps,
        start,
        end,
        lambda t: process.clock(t) ** (1.0 / power),
        lambda root: process.from_clock(root**power),
        boundary,
    )


@registered
def quadratic_time(
    process: Process, steps: int, *, start: Start = None, end: End = None, boundary: float | None = None
) -> TimeGrid:
    """Return the grid that is even in √t (DDIM's quadratic one, Song et al., arXiv 2010.02502)."""
    return uniform_time(process, steps, power=2.0, start=start, end=end, boundary=boundary)


@registered
def karras(
    process: Process,
    steps: int,
    *,
    rho: float = 7.0,
    start: Start = None,
    end: End = None,
    boundary: float | None = None,
) -> TimeGrid:
    """Return the grid that is even in (σ/α)^{1/ρ} (Karras et al., EDM, arXiv 2206.00364, eq. 5).

    Raises:
        InputError: as ``uniform_logsnr``, and for a ``rho`` that is not positive.
    """
    process = as_process(process)
    rho = real("rho", rho, 0.0, above=True, hint="give a finite number above 0; 7 is usual")
    return _spaced(
        process,
        steps,
        start,
        end,
        lambda t: (-process.half_logsnr(t) / rho).exp(),
        lambda root: process.time(-rho * root.log()),
        boundary,
        reaches_zero=False,
    )


@registered
def early_end(
    process: Process, steps: int, *, half_logsnr: float = 2.5, start: Start = None, end: End = None
) -> TimeGrid:
    """Return the grid that is even in λ up to ``half_logsnr``, with one last interval to the noise-free end.

    In few steps it spends no calls where the image is nearly finished.

    Raises:
        InputError: as ``uniform_logsnr``, for a ``half_logsnr`` that the process does not reach between its noisiest
            time and ``t_min``, and for an ``end`` other than "zero", 0 and None: this grid ends nowhere else.
    """
    process, steps = as_process(process), checked_steps(steps)
    if end is not None and not (isinstance(end, str) and end == "zero") and as_real(end) != 0.0:
        raise InputError(
            f"end is {shown(end)}: early_end goes to the noise-free end; leave end out, or set half_logsnr."
        )
    low, high = (float(process.half_logsnr(t)) for t in (process.t_max, process.t_min))
    level = as_real(half_logsnr)
    if level is None or not low < level <= high:
        raise InputError(f"half_logsnr is {shown(half_logsnr)}: give a number above {low:.3g} and up to {high:.3g}.")
    last = max(float(process.time(level)), process.t_min)
    if steps == 1:
        return TimeGrid(process, [beginning(process, start, last), 0.0])
    even = uniform_logsnr(process, steps - 1, start=start, end=last)
    return TimeGrid(process, torch.cat([even.times, torch.zeros(1, dtype=torch.float64)]))


def _power(power: float) -> float:
    return real("power", power, 0.0, above=True, hint="give a finite number above 0; 1 is even, 2 is usual")


def checked_steps(steps: int) -> int:
    """Return ``steps`` if it is a whole number from 1 to ``MOST``."""
    return whole("steps", steps, 1, MOST)


def beginning(process: Process, start: Start, last: float) -> float:
    """Return the first time of a grid whose last one above the noise-free end is ``last``."""
    if start is None:
        return process.t_max
    if start == "noise":
        if float(process.alpha(process.t_limit)) != 0.0:
            raise InputError(f"start is 'noise', and {process!r} has no time at which α is 0: leave it out, for t_max.")
        return process.t_limit
    number = as_real(start)
    if number is None or not last < number <= process.t_limit:
        raise InputError(
            f"start is {shown(start)}: give a time above {last:g} up to {process.t_limit:g}, 'noise' or None for t_max."
        )
    return number


def span(process: Process, end: End) -> tuple[float, bool]:
    """Return the last time that is not the noise-free end by way of "zero", and whether such an interval follows."""
    if end is None:
        return process.t_min, process.ends_at_zero
    if end == "zero":
        return process.t_min, True
    number = as_real(end)
    if number is None or not 0 <= number < process.t_max:
        raise InputError(f"end is {shown(end)}: give a time from 0 to below {process.t_max:g}, 'zero' or None.")
    return number, False


def checked_boundary(boundary: float, first: float, last: float, intervals: int) -> float:
    """Return the time of a boundary inside a grid that has so many intervals from ``first`` to ``last``.

    Raises:
        InputError: if it is not between them, or there are not two intervals.
    """
    number = as_real(boundary)
    if number is None or not last < number < first:
        raise InputError(
            f"boundary is {shown(boundary)}: give a time between {last:.6g} and {first:.6g}; that of a pipeline with "
            "two experts is fs.models.from_pipeline(pipe, …).boundary."
        )
    if intervals < 2:
        raise InputError(f"boundary is {number:g}, and the grid has no inner time to put there: take more steps.")
    return number


def _spaced(
    process: Process,
    steps: int,
    start: Start,
    end: End,
    forward: Callable[[Tensor], Tensor],
    back: Callable[[Tensor], Tensor],
    boundary: float | None,
    *,
    reaches_zero: bool = True,
) -> TimeGrid:
    """Return the grid that is even in ``forward(t)``, with ``back`` its inverse; both ends are exact."""
    steps = checked_steps(steps)
    last, then_zero = span(process, end)
    if last == 0 and not reaches_zero:
        raise InputError(
            "end is 0, where the half log-SNR is infinite: write end='zero' for a last interval to the noise-free end."
        )
    intervals = steps - 1 if then_zero else steps
    begin = beginning(process, start, last)
    first, final = forward(torch.tensor([begin, last], dtype=torch.float64))
    if not bool(torch.isfinite(first)):
        first = forward(torch.tensor(process.t_max, dtype=torch.float64))
    fractions = torch.linspace(0.0, 1.0, intervals + 1, dtype=torch.float64)
    place = 0
    if boundary is not None:
        boundary = checked_boundary(boundary, begin, last, intervals)
        at = float((forward(torch.tensor(boundary, dtype=torch.float64)) - first) / (final - first))
        place = min(max(round(at * intervals), 1), intervals - 1)
        before, after = (torch.linspace(0.0, 1.0, n + 1, dtype=torch.float64) for n in (place, intervals - place))
        fractions = torch.cat([at * before[:-1], at + (1.0 - at) * after])
    times = back(first + (final - first) * fractions)
    if boundary is not None:
        times[place] = boundary
    times[0] = begin
    if intervals:
        times[-1] = last
    return TimeGrid(process, torch.cat([times, torch.zeros(int(then_zero), dtype=torch.float64)]))
