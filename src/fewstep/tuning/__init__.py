"""The search for the best recipe of a model within a budget."""

from fewstep.tuning.objectives import DistanceToImages, ErrorToSolution, Objective, Score
from fewstep.tuning.result import Tried, Tuning, Value, Verdict
from fewstep.tuning.settings import Settings
from fewstep.tuning.tune import tune

__all__ = [
    "DistanceToImages",
    "ErrorToSolution",
    "Objective",
    "Score",
    "Settings",
    "Tried",
    "Tuning",
    "Value",
    "Verdict",
    "tune",
]
