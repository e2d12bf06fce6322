"""Settings measured on the user's own model: what Skip-Tuning does to it, and which ρ is best."""

from fewstep.tune.diagnosis import Diagnosis, diagnose
from fewstep.tune.inversion import NoiseStatistics, invert, noise_statistics
from fewstep.tune.losses import Change, Losses, denoising_losses
from fewstep.tune.norms import NormRatios, norm_ratios
from fewstep.tune.objectives import FeatureLoss, Frechet, Objective
from fewstep.tune.real_data import RealData, noise_levels, plan_levels
from fewstep.tune.search import Check, Point, SearchResult, golden_section, search

__all__ = [
    "Change",
    "Check",
    "Diagnosis",
    "FeatureLoss",
    "Frechet",
    "Losses",
    "NoiseStatistics",
    "NormRatios",
    "Objective",
    "Point",
    "RealData",
    "SearchResult",
    "denoising_losses",
    "diagnose",
    "golden_section",
    "invert",
    "noise_levels",
    "noise_statistics",
    "norm_ratios",
    "plan_levels",
    "search",
]
