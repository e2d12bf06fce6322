"""Solvers: each looks at a grid and writes a plan."""

from fewstep.solvers import tau
from fewstep.solvers.base import Solver
from fewstep.solvers.deis import DEIS
from fewstep.solvers.dpmpp import DPMSolverPP
from fewstep.solvers.registry import NAMES, named
from fewstep.solvers.sa import SASolver
from fewstep.solvers.single import DDIM, Euler, Heun
from fewstep.solvers.unipc import UniPC

__all__ = [
    "DDIM",
    "DEIS",
    "DPMSolverPP",
    "Euler",
    "Heun",
    "NAMES",
    "SASolver",
    "Solver",
    "UniPC",
    "named",
    "tau",
]
