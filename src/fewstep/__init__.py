"""fewstep: trained diffusion and flow-matching models at their best in few network calls, without training.

Names are loaded when they are first used, so that ``import fewstep`` and ``fewstep --help`` are quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "DDIM": "solvers",
    "DEIS": "solvers",
    "DPMSolverPP": "solvers",
    "DataPredictor": "denoiser",
    "Denoiser": "denoiser",
    "Euler": "solvers",
    "Heun": "solvers",
    "IPNDM": "solvers",
    "Plan": "plan",
    "Recipe": "recipe",
    "RecipeBook": "recipe",
    "SASolver": "solvers",
    "Solver": "solvers",
    "TimeGrid": "time_grid",
    "UniPC": "solvers",
    "calibrate": "calibration",
    "disable": "integrations.diffusers",
    "doctor": "integrations.diffusers",
    "enable": "integrations.diffusers",
    "execute": "executor",
    "initial_state": "sampling",
    "invert": "inversion",
    "load_recipe": "recipe",
    "sample": "sampling",
    "summary": "integrations.diffusers",
    "tau": "solvers",
    "tune": "tuning",
    "zoo": "models",
}
_MODULES = (
    "errors",
    "grids",
    "guidance",
    "integrations",
    "metrics",
    "models",
    "processes",
    "skip",
    "skip_analysis",
    "solvers",
    "spectra",
    "tuning",
)

__all__ = [*_HOMES, *_MODULES]

if TYPE_CHECKING:
    from fewstep import errors as errors
    from fewstep import grids as grids
    from fewstep import guidance as guidance
    from fewstep import integrations as integrations
    from fewstep import metrics as metrics
    from fewstep import models as models
    from fewstep import processes as processes
    from fewstep import skip as skip
    from fewstep import skip_analysis as skip_analysis
    from fewstep import solvers as solvers
    from fewstep import spectra as spectra
    from fewstep import tuning as tuning
    from fewstep.calibration.calibrate import calibrate as calibrate
    from fewstep.denoiser import DataPredictor as DataPredictor
    from fewstep.denoiser import Denoiser as Denoiser
    from fewstep.executor import execute as execute
    from fewstep.integrations.diffusers import disable as disable
    from fewstep.integrations.diffusers import doctor as doctor
    from fewstep.integrations.diffusers import enable as enable
    from fewstep.integrations.diffusers import summary as summary
    from fewstep.inversion import invert as invert
    from fewstep.models import zoo as zoo
    from fewstep.plan import Plan as Plan
    from fewstep.recipe import Recipe as Recipe
    from fewstep.recipe import RecipeBook as RecipeBook
    from fewstep.recipe import load_recipe as load_recipe
    from fewstep.sampling import initial_state as initial_state
    from fewstep.sampling import sample as sample
    from fewstep.solvers import DDIM as DDIM
    from fewstep.solvers import DEIS as DEIS
    from fewstep.solvers import IPNDM as IPNDM
    from fewstep.solvers import DPMSolverPP as DPMSolverPP
    from fewstep.solvers import Euler as Euler
    from fewstep.solvers import Heun as Heun
    from fewstep.solvers import SASolver as SASolver
    from fewstep.solvers import Solver as Solver
    from fewstep.solvers import UniPC as UniPC
    from fewstep.solvers import tau as tau
    from fewstep.time_grid import TimeGrid as TimeGrid
    from fewstep.tuning.tune import tune as tune


def __getattr__(name: str) -> Any:
    if name in __all__:
        importlib.import_module("fewstep.integrations")  # answers where a network that others offload computes
    if name in _HOMES:
        value = getattr(importlib.import_module(f"fewstep.{_HOMES[name]}"), name)
    elif name in _MODULES:
        value = importlib.import_module(f"fewstep.{name}")
    else:
        raise AttributeError(f"module 'fewstep' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
