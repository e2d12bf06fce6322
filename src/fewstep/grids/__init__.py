"""Time grids: the times at which a sampler stops on its way from noise to data."""

import importlib
import pkgutil

from fewstep.grids.heuristic import early_end, karras, quadratic_time, uniform_logsnr, uniform_time
from fewstep.grids.optimized import OptimizedGrid, optimized
from fewstep.grids.registry import NAMES, named, read, registered
from fewstep.time_grid import TimeGrid

__all__ = [
    "NAMES",
    "OptimizedGrid",
    "TimeGrid",
    "early_end",
    "karras",
    "named",
    "optimized",
    "quadratic_time",
    "read",
    "registered",
    "uniform_logsnr",
    "uniform_time",
]

# A grid's file registers it when it is imported; those above are so for the names that they have here.
for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
