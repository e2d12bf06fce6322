"""Time grids: where a sampler stops on its way from noise to data."""

from fewstep.grids.heuristic import karras, quadratic_time, uniform_logsnr, uniform_time
from fewstep.grids.optimized import OptimizedGrid, optimized
from fewstep.grids.registry import NAMES, named
from fewstep.time_grid import TimeGrid

__all__ = [
    "NAMES",
    "OptimizedGrid",
    "TimeGrid",
    "karras",
    "named",
    "optimized",
    "quadratic_time",
    "uniform_logsnr",
    "uniform_time",
]
