"""The analysis of Skip-Tuning on a model: its effects, and the search for ρ."""

from fewstep.skip_analysis.complexity import complexity
from fewstep.skip_analysis.diagnosis import Diagnosis, diagnose
from fewstep.skip_analysis.inversion import NoiseStatistics, invert, noise_statistics
from fewstep.skip_analysis.losses import Change, Losses, denoising_losses
from fewstep.skip_analysis.norms import NormRatios, norm_ratios
from fewstep.skip_analysis.objectives import FeatureLoss, Frechet, Objective
from fewstep.skip_analysis.real_data import RealData, noise_levels, plan_levels
from fewstep.skip_analysis.search import Check, SearchPoint, SearchResult, golden_section, search

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
    "SearchPoint",
    "RealData",
    "SearchResult",
    "complexity",
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
