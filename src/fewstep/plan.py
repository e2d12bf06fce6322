"""The plan: a sampler as a frozen float64 table, one row per linear combination."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from fewstep import processes
from fewstep.errors import InputError
from fewstep.processes import Process
from fewstep.processes.base import on_host

__all__ = ["Plan", "Prediction", "Row"]

Prediction = Literal["x0", "noise"]
FORMAT = "fewstep-plan/1"
ROUNDINGS = 64
"""How many roundings of its largest parts the sum of a row may be off by."""


@dataclass(frozen=True)
class Row:
    """One row of a plan, for reading: next state = state·base + Σ_j data[j]·history[j] + noise·ξ.

    ``history[0]`` is the newest prediction. The base is the state that the row's interval starts from.
    With ``evaluate`` the network is first called on the state made by the row before (x_T for the
    first row) and its prediction put in front of the history.
    """

    step: int
    time: float
    state: float
    data: tuple[float, ...]
    noise: float
    evaluate: bool


@dataclass(frozen=True, eq=False)
class Plan:
    r"""A training-free sampler on a fixed time grid, as a table.

    Row r belongs to the interval ``step[r]``, from ``times[step[r]]`` to ``times[step[r] + 1]``. Several
    rows of one interval (predictor, corrector) start from the same base and share the same noise ξ; the
    last of them makes the base of the next interval. With base x and history H (newest first) a row is

        x_next = state[r]·x + Σ_j data[r, j]·H_j + noise[r]·ξ.

    Coefficients may have leading batch dimensions: then it is a batch of plans of one structure, on a
    batch of grids. Such a batch has ``weights()`` but cannot be executed.

    Args:
        process: the noising process.
        times: float64 [..., N + 1], falling.
        step: int64 [R], the interval of each row, in order and without gaps.
        state, noise: float64 [..., R].
        data: float64 [..., R, K], history newest first, zeros where a row does not look.
        evaluate: bool [R], whether the network is called before the row.
        prediction: what the history holds, "x0" or "noise" (ε̂ = (x − α·D)/σ at the point of evaluation).
        solver: the solver's description, for people.
        fitted: whether the coefficients were fitted to a model, which need not reproduce a constant D.

    Raises:
        InputError: if shapes disagree, a coefficient is not finite, a row looks further back than the
            calls made so far, or (unless ``fitted``) a constant data prediction is not reproduced exactly:
            state·α_s + Σ_j data_j = α_t for "x0", state·α_s = α_t for "noise", to 1e-9 and the rounding of the
            sum.
    """

    process: Process
    times: Tensor
    step: Tensor
    state: Tensor
    data: Tensor
    noise: Tensor
    evaluate: Tensor
    prediction: Prediction = "x0"
    solver: str = ""
    fitted: bool = False

    @on_host
    def __post_init__(self) -> None:
        """Refuse a table that is wrong."""
        self._check_shapes()
        for name in ("times", "state", "data", "noise"):
            if not bool(torch.isfinite(getattr(self, name)).all()):
                raise InputError(f"plan of {self.solver or 'a solver'}: {name} is not finite: {getattr(self, name)}.")
        reach = (self.data.detach() != 0).flatten(0, -3).any(0) if self.data.ndim > 2 else self.data != 0
        calls = self.evaluate.cumsum(0)
        if bool((reach & (torch.arange(self.data.shape[-1]) >= calls[:, None])).any()):
            raise InputError("a row of the plan uses more predictions than were made before it.")
        if not self.fitted:
            self._check_consistency()

    def _check_shapes(self) -> None:
        rows = self.step.numel()
        wanted = {
            "state": self.state.shape[-1:],
            "noise": self.noise.shape[-1:],
            "evaluate": self.evaluate.shape,
            "data": self.data.shape[-2:-1],
        }
        for name, shape in wanted.items():
            if tuple(shape) != (rows,):
                raise InputError(f"plan.{name} has {tuple(shape)} rows, plan.step has {rows}: they must agree.")
        moves = self.step.diff()
        gapless = rows > 0 and self.step[0] == 0 and bool(((moves == 0) | (moves == 1)).all())
        if not gapless or int(self.step[-1]) + 2 != self.times.shape[-1]:
            raise InputError(
                f"plan.step is {self.step.tolist()} for {self.times.shape[-1]} times: "
                "number the intervals 0, 1, 2, … without a gap, and cover each."
            )
        if not bool(self.evaluate[0]):
            raise InputError("the first row of a plan must evaluate the network: set evaluate[0] to True.")
        if self.prediction not in ("x0", "noise"):
            raise InputError(f"prediction is {self.prediction!r}: write 'x0' or 'noise'.")

    def _check_consistency(self) -> None:
        alpha = self.process.alpha(self.times)
        source, target = alpha[..., self.step], alpha[..., self.step + 1]
        off = self.state * source - target
        allowed = torch.full_like(off, 1e-9)
        if self.prediction == "x0":
            off = off + self.data.sum(-1)
            allowed = allowed + ROUNDINGS * torch.finfo(torch.float64).eps * self.data.abs().sum(-1)
        wrong = off.abs()[off.abs() > allowed]
        if wrong.numel():
            raise InputError(
                f"plan of {self.solver or 'a solver'} is not consistent: a constant data prediction is "
                f"reproduced up to {float(wrong.max()):.2e} only; the coefficients of each row must "
                "satisfy state·α_s + Σ data = α_t."
            )

    @cached_property
    def nfe(self) -> int:
        """The number of network calls."""
        return int(self.evaluate.sum())

    @property
    def steps(self) -> int:
        """The number of intervals N."""
        return self.times.shape[-1] - 1

    @cached_property
    def stochastic(self) -> bool:
        """Whether any row adds noise."""
        return bool((self.noise != 0).any())

    @cached_property
    def call_times(self) -> Tensor:
        """The times at which the network is called, float64 [..., nfe]."""
        return self.times[..., self._call_points]

    @cached_property
    def _call_points(self) -> Tensor:
        made_at = torch.cat([self.step.new_zeros(1), self.step[:-1] + 1])
        return made_at[self.evaluate]

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """The rows one by one, for reading; not for a batch of plans."""
        if self.times.ndim != 1:
            raise InputError(f"a batch of {tuple(self.times.shape[:-1])} plans has no single list of rows: index it.")
        columns = (self.step, self.times[self.step + 1], self.state, self.data, self.noise, self.evaluate)
        return tuple(
            Row(s, t, a, tuple(b), c, e) for s, t, a, b, c, e in zip(*(x.tolist() for x in columns), strict=True)
        )

    def weights(self) -> tuple[Tensor, Tensor]:
        r"""Return (A, W) with x_N = A·x_T + Σ_i W_i·D_i for data predictions D_i frozen along the trajectory.

        A is [...], W is [..., nfe], in the order of the calls. Noise is left out.
        """
        gain, contributions = self.contributions()
        return gain, contributions.sum(-2)

    @on_host
    def contributions(self, row: int = -1) -> tuple[Tensor, Tensor]:
        r"""Return (A, C) with x = A·x_T + Σ_r Σ_i C_{r,i}·D_i, x being the state that ``row`` makes (the last one).

        C is [..., R, nfe]: what call i adds through row r. The rows form one triangular linear system; its
        adjoint solution gives every weight at once.
        """
        rows, calls = self.step.numel(), self.nfe
        to_call = self.evaluate.cumsum(0)
        batch = self.state.shape[:-1]
        taken = torch.zeros(*batch, rows, calls, dtype=torch.float64)
        looking, slot = torch.nonzero(torch.arange(self.data.shape[-1]) < to_call[:, None], as_tuple=True)
        taken[..., looking, to_call[looking] - 1 - slot] = self.data[..., looking, slot]
        system = torch.eye(rows + 1, dtype=torch.float64).repeat(*batch, 1, 1)
        system[..., torch.arange(1, rows + 1), self._base + 1] = -self.state
        if self.prediction == "noise":
            alpha, sigma = self.process.alpha(self.call_times), self.process.sigma(self.call_times)
            point = torch.nonzero(self.evaluate).squeeze(-1)
            system[..., 1:, point] = system[..., 1:, point] - taken / sigma[..., None, :]
            taken = -taken * (alpha / sigma)[..., None, :]
        end = torch.zeros(*batch, rows + 1, 1, dtype=torch.float64)
        end[..., row + 1 if row >= 0 else row, :] = 1.0
        adjoint = torch.linalg.solve_triangular(system.mT, end, upper=True).squeeze(-1)
        return adjoint[..., 0], adjoint[..., 1:, None] * taken

    @cached_property
    def _base(self) -> Tensor:
        """For each row, the row that made its base; −1 is x_T."""
        first = torch.cat([self.step.new_ones(1, dtype=torch.bool), self.step.diff() > 0])
        return torch.nonzero(first).squeeze(-1)[self.step] - 1

    def to_json(self) -> str:
        """Return the plan as JSON; ``from_json`` gives the same plan back, bit for bit."""
        rows = [
            {"step": row.step, "state": row.state, "data": list(row.data), "noise": row.noise, "evaluate": row.evaluate}
            for row in self.rows
        ]
        return json.dumps(
            {
                "format": FORMAT,
                "solver": self.solver,
                "process": self.process.to_dict(),
                "times": self.times.tolist(),
                "prediction": self.prediction,
                "fitted": self.fitted,
                "rows": rows,
            },
            indent=1,
        )

    @classmethod
    @on_host
    def from_json(cls, text: str) -> Plan:
        """Return the plan that ``to_json`` wrote.

        Raises:
            InputError: if the text is not such a plan, or its table is wrong.
        """
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise InputError(f"this is not JSON ({error}): give what Plan.to_json wrote.") from error
        if not isinstance(data, Mapping) or data.get("format") != FORMAT:
            found = data.get("format") if isinstance(data, Mapping) else type(data).__name__
            raise InputError(f"the format is {found!r}: this version of fewstep reads {FORMAT!r}.")
        try:
            rows = data["rows"]
            return cls(
                process=processes.from_dict(data["process"]),
                times=torch.tensor(data["times"], dtype=torch.float64),
                step=torch.tensor([row["step"] for row in rows], dtype=torch.long),
                state=torch.tensor([row["state"] for row in rows], dtype=torch.float64),
                data=torch.tensor([row["data"] for row in rows], dtype=torch.float64),
                noise=torch.tensor([row["noise"] for row in rows], dtype=torch.float64),
                evaluate=torch.tensor([row["evaluate"] for row in rows], dtype=torch.bool),
                prediction=data["prediction"],
                solver=data["solver"],
                fitted=data["fitted"],
            )
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"the plan is damaged ({error!r}): write it anew with Plan.to_json.") from error

    def __str__(self) -> str:
        lines = [
            f"{self.solver or 'plan'}: {self.steps} steps, {self.nfe} calls, history of {self.prediction}",
            f"{'step':>4} {'call':>4} {'time':>10} {'state':>11}  data (newest first) | noise",
        ]
        for row in self.rows:
            data = " ".join(f"{b:+.5f}" for b in row.data)
            call = "*" if row.evaluate else ""
            lines.append(f"{row.step:>4} {call:>4} {row.time:>10.6f} {row.state:>11.6f}  {data} | {row.noise:.5f}")
        return "\n".join(lines)
