"""Skip-Tuning without hooks: the skip is multiplied in the concatenation itself."""

from __future__ import annotations

import torch
from torch.overrides import TorchFunctionMode


class ScaledConcatenation(TorchFunctionMode):
    """Multiplies the second of two concatenated feature maps by the next of ``factors`` (numbers or functions).

    A concatenation counts if it joins two tensors of ``ndim`` dimensions along ``dim``, equal in all others,
    and is not among the first ``before``. ``seen`` are the shapes of the skips.
    """

    def __init__(self, factors, ndim=4, dim=1, before=0):
        super().__init__()
        self.factors, self.ndim, self.dim, self.before, self.seen = list(factors), ndim, dim, before, []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is torch.cat:
            tensors = list(args[0])
            dim = kwargs.get("dim", args[1] if len(args) > 1 else 0)
            if len(tensors) == 2 and all(x.ndim == self.ndim for x in tensors) and self.joins_features(tensors, dim):
                if self.before > 0:
                    self.before -= 1
                    return torch.cat(tensors, dim=dim)
                tensors[1] = tensors[1] * self.factors[len(self.seen)]
                self.seen.append(tuple(tensors[1].shape))
                return torch.cat(tensors, dim=dim)
        return function(*args, **kwargs)

    def joins_features(self, tensors, dim):
        dim %= self.ndim
        if dim != self.dim:
            return False
        return all(a == b for i, (a, b) in enumerate(zip(*(x.shape for x in tensors), strict=True)) if i != dim)


def randomised(network, seed=0):
    """Give every parameter a random value, so that no layer is zero; return the network, ready to be called."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in network.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim > 1:
            parameter.data = noise / max(parameter.shape[1:].numel(), 1) ** 0.5
        else:
            parameter.data = 0.1 * noise + ("weight" in name)
    return network.eval().requires_grad_(False)
