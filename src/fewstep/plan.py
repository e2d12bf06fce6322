"""The plan: a sampler as a frozen float64 table, one row per linear combination."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal

import torch
from pydantic import BeforeValidator, Field
from torch import Tensor

from fewstep import processes
from fewstep.analytic import AnalyticPrediction, StoredAnalytic
from fewstep.checks import flag, shown, whole
from fewstep.errors import InputError
from fewstep.processes import Process
from fewstep.processes.base import on_host
from fewstep.storage import Plain, Schema, Stored, json_text, parsed
from fewstep.time_grid import StoredTimes, TimeGrid, as_grid

__all__ = ["Plan", "Prediction", "Row"]

Prediction = Literal["x0", "epsilon"]
FORMAT = "fewstep-plan/2"
FIRST_FORMAT = "fewstep-plan/1"
COLUMNS = {
    "interval": torch.long,
    "state_weight": torch.float64,
    "history_weights": torch.float64,
    "noise_scale": torch.float64,
    "evaluate": torch.bool,
}
ROUNDINGS = 64
"""Tolerance of a row's sum, in roundings of its largest parts."""


@dataclass(frozen=True)
class Row:
    """One row of a plan: next state = state_weight·base + Σ_j history_weights[j]·history[j] + noise_scale·ξ.

    ``history[0]`` is the newest prediction. The base is the state that the row's interval starts from.
    With ``evaluate`` the network is first called on the state made by the row before (x_T for the
    first row) and its prediction put in front of the history; with ``analytic`` a formula's prediction there.
    ``time`` is the interval's end.
    """

    interval: int
    time: float
    state_weight: float
    history_weights: tuple[float, ...]
    noise_scale: float
    evaluate: bool
    analytic: AnalyticPrediction | None = None


class StoredRow(Schema):
    """A row in JSON."""

    interval: int = Field(ge=0, lt=2**31)
    state_weight: float
    history_weights: list[float]
    noise_scale: float
    evaluate: bool
    analytic: StoredAnalytic | None = None


class StoredPlan(Schema):
    """A plan in JSON."""

    solver: str
    process: Plain
    times: StoredTimes
    prediction: Prediction
    fitted: bool
    rows: list[StoredRow]


class FirstStoredRow(StoredRow):
    """A row in the first format, which had other words."""

    interval: int = Field(alias="step", ge=0, lt=2**31)
    state_weight: float = Field(alias="state")
    history_weights: list[float] = Field(alias="data")
    noise_scale: float = Field(alias="noise")


class FirstStoredPlan(StoredPlan):
    """A plan in the first format."""

    prediction: Annotated[Prediction, BeforeValidator(lambda word: "epsilon" if word == "noise" else word)]
    rows: list[FirstStoredRow]  # type: ignore[assignment]  # The same fields by other names.


FORMATS: Mapping[str, type[StoredPlan]] = {FORMAT: StoredPlan, FIRST_FORMAT: FirstStoredPlan}


@dataclass(frozen=True, eq=False)
class Plan(Stored):
    r"""A training-free sampler on a fixed time grid, as a table.

    Row r belongs to the interval ``interval[r]``, from ``times[interval[r]]`` to ``times[interval[r] + 1]``. Several
    rows of one interval (predictor, corrector) start from the same base and share the same noise ξ; the
    last of them makes the base of the next interval. With base x and history H (newest first) a row is

        x_next = state_weight[r]·x + Σ_j history_weights[r, j]·H_j + noise_scale[r]·ξ.

    Coefficients may have leading batch dimensions: then it is a batch of plans of one structure, on a
    batch of grids. Such a batch has ``unrolled()`` but cannot be executed.

    Args:
        grid: the time grid of N intervals, whose process is the plan's.
        interval: int64 [R], the interval of each row, in order and without gaps.
        state_weight, noise_scale: float64 [..., R].
        history_weights: float64 [..., R, K], history newest first, zeros where a row does not look.
        evaluate: bool [R], whether the network is called before the row.
        prediction: what the history holds, "x0" or "epsilon" (ε̂ = (x − α·D)/σ at the point of evaluation).
        solver: the solver's description, for people.
        fitted: whether the coefficients were fitted to a model, which need not reproduce a constant D.
        analytic: for each row the formula that predicts before it in place of the network, or None; empty for none.

    Raises:
        InputError: if shapes disagree, a coefficient is not finite, a row looks further back than the
            predictions made so far, or (unless ``fitted``) a constant data prediction is not reproduced exactly:
            state_weight·α_s + Σ_j history_weights_j = α_t for "x0", state_weight·α_s = α_t for "epsilon", to 1e-9
            and the rounding of the sum.
    """

    grid: TimeGrid
    interval: Tensor
    state_weight: Tensor
    history_weights: Tensor
    noise_scale: Tensor
    evaluate: Tensor
    prediction: Prediction = "x0"
    solver: str = ""
    fitted: bool = False
    analytic: tuple[AnalyticPrediction | None, ...] = ()

    @property
    def process(self) -> Process:
        """The noising process."""
        return self.grid.process

    @property
    def times(self) -> Tensor:
        """The times of the grid, float64 [..., N + 1], falling."""
        return self.grid.times

    @on_host
    def __post_init__(self) -> None:
        """Refuse a table that is wrong."""
        as_grid(self.grid)
        flag("fitted", self.fitted)
        if not isinstance(self.analytic, tuple):
            raise InputError(f"plan.analytic is {shown(self.analytic)}: give a tuple, a formula or None for each row.")
        for name in COLUMNS:
            value = getattr(self, name)
            if not isinstance(value, Tensor) or value.is_meta or value.is_complex() or not value.ndim:
                raise InputError(f"plan.{name} is {shown(value)}: give a tensor of real numbers, one for each row.")
        self._check_shapes()
        for name in ("state_weight", "history_weights", "noise_scale"):
            if not bool(torch.isfinite(getattr(self, name)).all()):
                raise InputError(f"plan of {self.solver or 'a solver'}: {name} is not finite: {getattr(self, name)}.")
        reach = (
            (self.history_weights.detach() != 0).flatten(0, -3).any(0)
            if self.history_weights.ndim > 2
            else self.history_weights != 0
        )
        made = self.predicts.cumsum(0)
        if bool((reach & (torch.arange(self.history_weights.shape[-1]) >= made[:, None])).any()):
            raise InputError("a row of the plan uses more predictions than were made before it.")
        if not self.fitted:
            self._check_consistency()

    def _check_shapes(self) -> None:
        rows = self.interval.numel()
        wanted = {
            "state_weight": self.state_weight.shape[-1:],
            "noise_scale": self.noise_scale.shape[-1:],
            "evaluate": self.evaluate.shape,
            "history_weights": self.history_weights.shape[-2:-1],
        }
        for name, shape in wanted.items():
            if tuple(shape) != (rows,):
                raise InputError(f"plan.{name} has {tuple(shape)} rows, plan.interval has {rows}: they must agree.")
        moves = self.interval.diff()
        gapless = rows > 0 and self.interval[0] == 0 and bool(((moves == 0) | (moves == 1)).all())
        if not gapless or int(self.interval[-1]) + 2 != self.times.shape[-1]:
            raise InputError(
                f"plan.interval is {self.interval.tolist()} for {self.times.shape[-1]} times: "
                "number the intervals 0, 1, 2, … without a gap, and cover each."
            )
        if len(self.analytic) not in (0, rows):
            raise InputError(f"plan.analytic has {len(self.analytic)} entries for {rows} rows: give one for each.")
        if any(formula is not None and call for formula, call in zip(self.analytic, self.evaluate, strict=False)):
            raise InputError("a row of the plan both calls the network and has a formula for it: keep one of them.")
        self._check_past()
        if not bool(self.predicts[0]):
            raise InputError("the first row of a plan must evaluate the network: set evaluate[0] to True.")
        if self.prediction not in ("x0", "epsilon"):
            raise InputError(f"prediction is {self.prediction!r}: write 'x0' or 'epsilon'.")

    def _check_past(self) -> None:
        """Refuse formulas of predictions that are not kept, or that are of the noise."""
        made, kept = 0, self.history_weights.shape[-1]
        for formula, predicts in zip(self.analytic, self.predicts.tolist(), strict=False):
            past = 0 if formula is None else formula.past
            if past > min(made, kept) or (past and self.prediction != "x0"):
                raise InputError(
                    f"a formula of the plan takes {past} earlier data predictions: before it come {made} of "
                    f"{self.prediction}, and {kept} are kept; calibrate anew."
                )
            made += predicts

    def _check_consistency(self) -> None:
        alpha = self.grid.alpha
        source, target = alpha[..., self.interval], alpha[..., self.interval + 1]
        off = self.state_weight * source - target
        allowed = torch.full_like(off, 1e-9)
        if self.prediction == "x0":
            off = off + self.history_weights.sum(-1)
            allowed = allowed + ROUNDINGS * torch.finfo(torch.float64).eps * self.history_weights.abs().sum(-1)
        wrong = off.abs()[off.abs() > allowed]
        if wrong.numel():
            raise InputError(
                f"plan of {self.solver or 'a solver'} is not consistent: a constant data prediction is "
                f"reproduced up to {float(wrong.max()):.2e} only; the coefficients of each row must "
                "satisfy state_weight·α_s + Σ history_weights = α_t."
            )

    @cached_property
    def nfe(self) -> int:
        """The number of network calls; analytic predictions cost none."""
        return int(self.evaluate.sum())

    @cached_property
    def predicts(self) -> Tensor:
        """Whether a prediction is made before the row, by the network or by a formula, bool [R]."""
        if not self.analytic:
            return self.evaluate
        return self.evaluate | torch.tensor([formula is not None for formula in self.analytic])

    @cached_property
    def formulas(self) -> tuple[AnalyticPrediction | None, ...]:
        """For each prediction in turn its formula, None where it is the network's."""
        chosen = self.analytic or (None,) * len(self.interval)
        return tuple(formula for formula, made in zip(chosen, self.predicts.tolist(), strict=True) if made)

    @property
    def by_class(self) -> bool:
        """Whether a formula has a mean for each class, so that the plan runs with classes alone."""
        return any(formula is not None and formula.by_class for formula in self.formulas)

    @property
    def steps(self) -> int:
        """The number of intervals N."""
        return self.grid.steps

    @cached_property
    def stochastic(self) -> bool:
        """Whether any row adds noise."""
        return bool((self.noise_scale != 0).any())

    @cached_property
    def call_times(self) -> Tensor:
        """The times at which the network is called, float64 [..., nfe]."""
        return self.times[..., self.call_points]

    @cached_property
    def call_points(self) -> Tensor:
        """The grid points at which the network is called, int64 [nfe]."""
        return self.row_points[self.evaluate]

    @cached_property
    def prediction_times(self) -> Tensor:
        """The times of all predictions, the network's and the formulas', float64 [..., P]."""
        return self.times[..., self.row_points[self.predicts]]

    @cached_property
    def row_points(self) -> Tensor:
        """For each row the grid point that a prediction before it belongs to, int64 [R]."""
        return torch.cat([self.interval.new_zeros(1), self.interval[:-1] + 1])

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """The rows one by one, for reading; not for a batch of plans."""
        if self.times.ndim != 1:
            raise InputError(f"a batch of {tuple(self.times.shape[:-1])} plans has no single list of rows: index it.")
        columns = (
            self.interval,
            self.times[self.interval + 1],
            self.state_weight,
            self.history_weights,
            self.noise_scale,
            self.evaluate,
        )
        formulas = self.analytic or (None,) * len(self.interval)
        return tuple(
            Row(s, t, a, tuple(b), c, e, formula)
            for s, t, a, b, c, e, formula in zip(*(x.tolist() for x in columns), formulas, strict=True)
        )

    def unrolled(self) -> tuple[Tensor, Tensor]:
        r"""Return (A, W) with x_N = A·x_T + Σ_i W_i·D_i for data predictions D_i frozen along the trajectory.

        A is [...], W is [..., P], in the order of the predictions; without analytic ones P = nfe. Noise is left out.
        """
        gain, contributions = self.contributions()
        return gain, contributions.sum(-2)

    @on_host
    def contributions(self, row: int = -1) -> tuple[Tensor, Tensor]:
        r"""Return (A, C) with x = A·x_T + Σ_r Σ_i C_{r,i}·D_i, x being the state that ``row`` makes (the last one).

        C is [..., R, P]: what prediction i adds through row r. The rows form one triangular linear system; its
        adjoint solution gives every weight at once.
        """
        rows, calls = self.interval.numel(), len(self.formulas)
        row = whole("row", row, -rows, rows - 1)
        to_call = self.predicts.cumsum(0)
        batch = self.state_weight.shape[:-1]
        taken = torch.zeros(*batch, rows, calls, dtype=torch.float64)
        looking, slot = torch.nonzero(torch.arange(self.history_weights.shape[-1]) < to_call[:, None], as_tuple=True)
        taken[..., looking, to_call[looking] - 1 - slot] = self.history_weights[..., looking, slot]
        system = torch.eye(rows + 1, dtype=torch.float64).repeat(*batch, 1, 1)
        system[..., torch.arange(1, rows + 1), self._base + 1] = -self.state_weight
        if self.prediction == "epsilon":
            alpha, sigma = self.process.alpha(self.prediction_times), self.process.sigma(self.prediction_times)
            point = torch.nonzero(self.predicts).squeeze(-1)
            system[..., 1:, point] = system[..., 1:, point] - taken / sigma[..., None, :]
            taken = -taken * (alpha / sigma)[..., None, :]
        end = torch.zeros(*batch, rows + 1, 1, dtype=torch.float64)
        end[..., row + 1 if row >= 0 else row, :] = 1.0
        adjoint = torch.linalg.solve_triangular(system.mT, end, upper=True).squeeze(-1)
        return adjoint[..., 0], adjoint[..., 1:, None] * taken

    @cached_property
    def _base(self) -> Tensor:
        """For each row, the row that made its base; −1 is x_T."""
        first = torch.cat([self.interval.new_ones(1, dtype=torch.bool), self.interval.diff() > 0])
        return torch.nonzero(first).squeeze(-1)[self.interval] - 1

    def to_dict(self) -> dict[str, Any]:
        """Return what ``to_json`` writes."""
        return {
            "format": FORMAT,
            "solver": self.solver,
            "process": self.process.to_dict(),
            "times": self.times.tolist(),
            "prediction": self.prediction,
            "fitted": self.fitted,
            "rows": [
                {name: getattr(row, name) for name in COLUMNS}
                | ({} if row.analytic is None else {"analytic": row.analytic.to_dict()})
                for row in self.rows
            ],
        }

    def to_json(self) -> str:
        """Return the plan as JSON; ``from_json`` gives the same plan back, bit for bit."""
        return json_text(self.to_dict())

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Return the plan that ``to_json`` wrote, now or in version 0.1.0's first format.

        Raises:
            InputError: if the text is not such a plan, or its table is wrong.
        """
        return cls.of(parsed(text, FORMATS, "the plan"))

    @classmethod
    @on_host
    def of(cls, stored: StoredPlan) -> Plan:
        """Return the plan that JSON held.

        Raises:
            InputError: if its table is wrong.
        """
        lengths = {len(row.history_weights) for row in stored.rows}
        if len(lengths) > 1:
            raise InputError(
                f"the plan is damaged: its rows have {sorted(lengths)} history_weights; give all the same number."
            )
        formulas = [None if row.analytic is None else AnalyticPrediction.of(row.analytic) for row in stored.rows]
        return Plan(
            grid=TimeGrid(processes.from_dict(stored.process), stored.times),
            **{
                name: torch.tensor([getattr(row, name) for row in stored.rows], dtype=dtype)
                for name, dtype in COLUMNS.items()
            },
            prediction=stored.prediction,
            solver=stored.solver,
            fitted=stored.fitted,
            analytic=tuple(formulas) if any(formulas) else (),
        )

    def __str__(self) -> str:
        lines = [
            f"{self.solver or 'plan'}: {self.steps} steps, {self.nfe} calls, history of {self.prediction}",
            f"{'interval':>8} {'call':>4} {'time':>10} {'state':>11}  history (newest first) | noise",
        ]
        for row in self.rows:
            history = " ".join(f"{b:+.5f}" for b in row.history_weights)
            call = "*" if row.evaluate else "=" if row.analytic else ""
            left = f"{row.interval:>8} {call:>4} {row.time:>10.6f} {row.state_weight:>11.6f}"
            lines.append(f"{left}  {history} | {row.noise_scale:.5f}")
        return "\n".join(lines)
