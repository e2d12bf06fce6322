"""Solvers: each turns a grid into a plan."""

import importlib
import pkgutil

from fewstep.solvers import tau
from fewstep.solvers.base import NAMES, Solver
from fewstep.solvers.deis import DEIS
from fewstep.solvers.dpmpp import DPMSolverPP
from fewstep.solvers.ipndm import IPNDM
from fewstep.solvers.multistep import MultistepSolver, Schedule
from fewstep.solvers.ordered import Ordered, optimized_orders
from fewstep.solvers.registry import named, spelled
from fewstep.solvers.sa import SASolver
from fewstep.solvers.single import DDIM, Euler, Heun
from fewstep.solvers.unipc import UniPC

__all__ = [
    "DDIM",
    "DEIS",
    "DPMSolverPP",
    "Euler",
    "Heun",
    "IPNDM",
    "MultistepSolver",
    "NAMES",
    "Ordered",
    "SASolver",
    "Schedule",
    "Solver",
    "UniPC",
    "named",
    "optimized_orders",
    "spelled",
    "tau",
]

# A solver's file registers it when it is imported; those above are so for the names that they have here.
for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
