"""The executor: one loop for every plan."""

from fewstep.executor.fold import folded, with_last_formula, without_last_formula
from fewstep.executor.loop import check_denoiser, execute, step_noise
from fewstep.executor.noise import Generators, NoiseSampler, NoiseSource, checked_seeds
from fewstep.executor.tape import Callback, Draw, StateCorrection

__all__ = [
    "Callback",
    "Draw",
    "Generators",
    "NoiseSampler",
    "NoiseSource",
    "StateCorrection",
    "check_denoiser",
    "checked_seeds",
    "execute",
    "folded",
    "step_noise",
    "with_last_formula",
    "without_last_formula",
]
