"""From a network to a data prediction: epsilon, x0, v, flow and EDM-preconditioned networks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fewstep.checks import as_given, checked_shape, flag, real, shown, tensor, whole
from fewstep.errors import InputError, unknown_name
from fewstep.processes import Process, VPDiscrete
from fewstep.processes.base import as_float64
from fewstep.unwrap import layers, module_device, network_of

__all__ = [
    "PREDICTIONS",
    "Condition",
    "DataPredictor",
    "Denoiser",
    "Network",
    "checked_prediction",
    "network_device",
    "over_tensors",
    "unpacked",
]

Network = Callable[..., Any]
Condition = Tensor | Mapping[str, Any] | None
"""None, a tensor (the network's third argument, such as class labels) or keywords for the network."""


def over_tensors(cond: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return a condition with each tensor in it changed, those in nested keywords too."""
    if isinstance(cond, Mapping):
        return {name: over_tensors(value, change) for name, value in cond.items()}
    return change(cond) if isinstance(cond, Tensor) else cond


def network_device(denoiser: object, x: Tensor | None) -> torch.device:
    """Return where a denoiser is called: where its network computes, or where ``x`` is if that cannot be seen."""
    stated = torch.device(getattr(denoiser, "device", None) or "cpu")
    module = next((layer for layer in layers(denoiser) if isinstance(layer, nn.Module)), None)
    place = None if module is None else module_device(module)
    if place is not None:
        return place
    return stated if x is None or stated.type != "cpu" else x.device


class DataPredictor(ABC):
    """A data prediction D(x_t, t) ≈ E[x_0 | x_t] that knows its process.

    ``shape`` is the shape of one sample, where it is known; ``num_classes`` the number of classes; ``integer_times``
    whether the network looks its time up (see ``Denoiser``).
    """

    process: Process
    shape: tuple[int, ...] | None = None
    num_classes: int | None = None
    integer_times: bool = False

    @property
    def device(self) -> torch.device:
        """Where the network lives."""
        return torch.device("cpu")

    @property
    def remembers(self) -> bool:
        """Whether D depends on earlier calls of a run too, as under a momentum."""
        return False

    def evaluations(self, t: float, conditional: bool = True) -> int:
        """Return how often networks are evaluated for one D at ``t``, under a condition or not; guidance takes two."""
        return 1

    @abstractmethod
    def __call__(self, x_t: Tensor, t: Tensor, cond: Condition = None) -> Tensor:
        """Return D(x_t, t), shaped like ``x_t`` [batch, …]; ``t`` is a 0-dimensional tensor."""

    def check_cond(self, cond: Any, batch: int) -> Condition:
        """Return ``cond`` as the predictor takes it, for ``batch`` samples.

        A class may be one number for all, or a sequence of ``batch`` numbers, where ``num_classes`` is known.

        Raises:
            InputError: if a class is out of range, or there are not as many as samples.
        """
        if cond is None or self.num_classes is None or isinstance(cond, Mapping):
            return cond
        labels = _labels(cond)
        if labels.ndim == 0:
            labels = labels.expand(batch)
        if labels.shape != (batch,) or labels.is_floating_point():
            raise InputError(
                f"cond has shape {tuple(labels.shape)}, dtype {labels.dtype}: give one class number, "
                f"or {batch}, one for each sample."
            )
        outside = labels[(labels < 0) | (labels >= self.num_classes)]
        if outside.numel():
            raise InputError(
                f"class {int(outside[0])} is out of range: the model has the classes 0 to {self.num_classes - 1}."
            )
        return labels.long()


def _labels(cond: Any) -> Tensor:
    """Return class numbers as a tensor.

    Raises:
        InputError: if they are nothing of the kind.
    """
    try:
        labels = as_given(cond)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise InputError(f"cond is {shown(cond)}: give class numbers, one for all or one for each sample.") from error
    if labels.dtype == torch.bool or labels.is_complex():
        raise InputError(f"cond is {shown(cond)}: class numbers are whole.")
    return labels


def checked_prediction(output: Any, x: Tensor, what: str = "the denoiser") -> Tensor:
    """Return what a network or denoiser put out for ``x``: a tensor shaped like it, of real numbers.

    Raises:
        InputError: if it is anything else; nothing is broadcast.
    """
    if not isinstance(output, Tensor):
        raise InputError(f"{what} returned {type(output).__name__}: it must return a tensor shaped like x_t.")
    if output.shape != x.shape:
        hint = "it must return a tensor shaped like x_t"
        if output.ndim == x.ndim > 1 and output.shape == (x.shape[0], 2 * x.shape[1], *x.shape[2:]):
            hint = "the other half of the channels is a learned variance: write fs.Denoiser(…, learned_variance=True)"
        raise InputError(f"{what} returned shape {tuple(output.shape)} for x_t of shape {tuple(x.shape)}: {hint}.")
    if output.is_complex() or output.dtype == torch.bool:
        raise InputError(f"{what} returned {output.dtype}: it must return real numbers.")
    return output


def _from_epsilon(output: Tensor, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    return (x - sigma * output) / alpha


def _from_x0(output: Tensor, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    return output


def _from_v(output: Tensor, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    return (alpha * x - sigma * output) / (alpha**2 + sigma**2)


def _from_flow(output: Tensor, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    return (x - sigma * output) / (alpha + sigma)


PREDICTIONS: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "epsilon": _from_epsilon,
    "flow": _from_flow,
    "v": _from_v,
    "x0": _from_x0,
}


def unpacked(output: Any) -> Any:
    """Return the tensor in an output that is an object with ``.sample``, or a tuple; other things as they are."""
    held = getattr(output, "sample", None)
    if isinstance(held, Tensor):
        return held
    return output[0] if isinstance(output, (tuple, list)) and output else output


class Denoiser(DataPredictor):
    r"""A network turned into a data prediction, once, at the edge.

    With o the network's output at x = x_t, and α, σ at t:

    - "epsilon": D = (x − σ·o)/α
    - "x0": D = o
    - "v" (v = α·ε − σ·x_0): D = (α·x − σ·o)/(α² + σ²), which is α·x − σ·o for α² + σ² = 1
    - "flow" (v = ε − x_0): D = (x − σ·o)/(α + σ), which is x − t·o for the rectified flow
    - "edm": o = F(c_in·x̄, c_noise) with x̄ = x/α, σ̄ = σ/α, c_noise = ¼·log σ̄, c_in = (σ̄² + σ_d²)^{−1/2},
      D = σ_d²·c_in²·x̄ + σ̄·σ_d·c_in·o (Karras et al., arXiv 2206.00364, table 1)

    The network is called ``network(x, time, …)`` with time [batch] in ``network_time(t)``'s units. Its input is cast
    to the type of its parameters, the time to float32 (float64 for an input of that type); x_t and D keep their own.
    It may write into its input, which is a copy. An output that is an object with ``.sample``, or a tuple, is
    unwrapped; it must be shaped like the input. Where α = 0, at a flow's t = 1, "epsilon"
    and "edm" give no D: start a little later.

    Args:
        network: any callable (x, time, cond) → output.
        process: the process it was trained on.
        prediction: what the network predicts, one of the five above.
        shape: shape of one sample, so that it can be drawn from a seed alone.
        num_classes: the number of classes, so that a class can be checked.
        default_cond: what the network is given where ``cond`` is None, such as the null class (a number).
        network_time: the map from t to what the network receives; ``process.network_time`` by default
            (VPDiscrete: N·t − 1, others t); diffusers' flow networks take ``lambda t: 1000 * t``.
        sigma_data: σ_d of "edm".
        learned_variance: whether the network outputs a variance too, in a second half of its channels; it is dropped.
        integer_times: whether the network looks its time up, as ``nn.Embedding`` does. It then receives whole numbers,
            int64, and ``fs.sample`` moves the grid's times to them, σ with them; for processes with training steps.

    Raises:
        InputError: if the prediction is unknown, or a setting is out of its range.
    """

    def __init__(
        self,
        network: Network,
        process: Process,
        prediction: str = "epsilon",
        *,
        shape: tuple[int, ...] | None = None,
        num_classes: int | None = None,
        default_cond: int | None = None,
        network_time: Callable[[Tensor], Tensor] | None = None,
        sigma_data: float = 0.5,
        learned_variance: bool = False,
        integer_times: bool = False,
    ) -> None:
        if not callable(network):
            raise InputError(f"network is {shown(network)}: give a callable (x, time, cond) → output.")
        if prediction not in (*PREDICTIONS, "edm"):
            raise unknown_name("prediction", prediction, (*PREDICTIONS, "edm"))
        if not isinstance(process, Process):
            raise InputError(f"process is {process!r}: give one of fewstep.processes, such as VPLinear().")
        self.network = network
        self.process = process
        self.prediction = prediction
        self.shape = None if shape is None else checked_shape(shape)
        self.num_classes = None if num_classes is None else whole("num_classes", num_classes)
        self.default_cond = None if default_cond is None else whole("default_cond", default_cond, 0)
        self.network_time = process.network_time if network_time is None else network_time
        self.sigma_data = real("sigma_data", sigma_data, 0.0, above=True)
        self.learned_variance = flag("learned_variance", learned_variance)
        self.integer_times = flag("integer_times", integer_times)
        if network_time is not None and not callable(network_time):
            raise InputError(f"network_time is {shown(network_time)}: give a function of t.")
        if integer_times and not isinstance(process, VPDiscrete):
            raise InputError(
                f"integer_times is for processes with training steps (fs.processes.VPDiscrete), not for {process!r}."
            )

    def __repr__(self) -> str:
        """Tell the network, what it predicts and for which process, and its size where it has one."""
        network = network_of(self.network)
        name = type(network).__name__ if isinstance(network, nn.Module) else getattr(network, "__name__", repr(network))
        settings = [name, repr(self.process), repr(self.prediction)]
        settings += [
            f"{key}={getattr(self, key)}" for key in ("shape", "num_classes") if getattr(self, key) is not None
        ]
        parameters = list(network.parameters()) if isinstance(network, nn.Module) else []
        if parameters:
            count, first = sum(parameter.numel() for parameter in parameters), parameters[0]
            settings.append(f"{count:,} parameters, {str(first.dtype).removeprefix('torch.')}, {first.device}")
        return f"Denoiser({', '.join(settings)})"

    def __call__(self, x_t: Tensor, t: Tensor, cond: Condition = None) -> Tensor:
        """Return D(x_t, t), in ``x_t``'s dtype."""
        tensor("x_t", x_t, "give the state, a floating-point tensor [batch, …]")
        t = t if isinstance(t, Tensor) else as_float64(t).to(x_t.device)
        if t.ndim:
            raise InputError(f"t has shape {tuple(t.shape)}: give one time, a number or a 0-dimensional tensor.")
        alpha, sigma = self.process.alpha(t), self.process.sigma(t)
        if self.prediction == "edm":
            return self._preconditioned(x_t / alpha, sigma / alpha, cond)
        output = self._call(x_t, self.network_time(t), cond)
        return PREDICTIONS[self.prediction](output, x_t, alpha, sigma)

    def _preconditioned(self, x: Tensor, sigma: Tensor, cond: Condition) -> Tensor:
        c_in = (sigma**2 + self.sigma_data**2).rsqrt()
        output = self._call(c_in * x, 0.25 * sigma.log(), cond)
        return (self.sigma_data * c_in) ** 2 * x + (sigma * self.sigma_data * c_in) * output

    def _call(self, x: Tensor, time: Tensor, cond: Condition) -> Tensor:
        inputs = x.to(self._dtype(x.dtype), copy=True)  # The network may write into it.
        kind = torch.float64 if inputs.dtype == torch.float64 else torch.float32
        times = (time.round().long() if self.integer_times else time.to(kind)).expand(x.shape[0])
        if not isinstance(cond, (Tensor, Mapping)):
            cond = self.check_cond(cond, len(x))
        if cond is None and self.default_cond is not None:
            cond = torch.full((x.shape[0],), self.default_cond, dtype=torch.long, device=x.device)
        if isinstance(cond, Mapping):
            output = self.network(inputs, times, **cond)
        else:
            output = self.network(inputs, times) if cond is None else self.network(inputs, times, cond)
        if not isinstance(output, Tensor):
            output = unpacked(output)
        if self.learned_variance and isinstance(output, Tensor) and output.ndim > 1:
            output = output[:, : x.shape[1]]
        return checked_prediction(output, x, "the network").to(x.dtype)

    def _dtype(self, dtype: torch.dtype) -> torch.dtype:
        """Return the dtype of the network's parameters, or ``dtype`` where it has none."""
        parameter = self._parameter
        return parameter.dtype if parameter is not None and parameter.is_floating_point() else dtype

    @property
    def device(self) -> torch.device:
        """Where the network computes; the CPU where that cannot be seen."""
        place = module_device(self.network) if isinstance(self.network, nn.Module) else None
        return place or torch.device("cpu")

    @property
    def _parameter(self) -> Tensor | None:
        return next(self.network.parameters(), None) if isinstance(self.network, nn.Module) else None
