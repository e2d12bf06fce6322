"""The executor: one loop for every plan."""

from fewstep.executor.fold import folded
from fewstep.executor.loop import Callback, StateCorrection, check_denoiser, execute
from fewstep.executor.noise import Generators, NoiseSampler, NoiseSource, checked_seeds

__all__ = [
    "Callback",
    "Generators",
    "NoiseSampler",
    "NoiseSource",
    "StateCorrection",
    "check_denoiser",
    "checked_seeds",
    "execute",
    "folded",
]
