"""Denoiser → Denoiser: guidance and thresholding."""

from fewstep.guidance.autoguidance import AutoGuidance
from fewstep.guidance.classifier import ClassifierGuidance
from fewstep.guidance.classifier_free import ClassifierFree
from fewstep.guidance.counting import evaluations
from fewstep.guidance.guided import Guided, checked_interval
from fewstep.guidance.rules import Linear, Projected, Rule, ZeroStar
from fewstep.guidance.thresholds import DynamicThreshold, StaticThreshold, thresholds
from fewstep.guidance.words import guidance_named
from fewstep.guidance.wrapped import Wrapped

__all__ = [
    "AutoGuidance",
    "ClassifierFree",
    "ClassifierGuidance",
    "DynamicThreshold",
    "Guided",
    "Linear",
    "Projected",
    "Rule",
    "StaticThreshold",
    "Wrapped",
    "ZeroStar",
    "checked_interval",
    "evaluations",
    "guidance_named",
    "thresholds",
]
