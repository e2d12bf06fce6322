"""Calibration: the rows of a plan, and its times, fitted to one model by least squares over forward calls."""

from fewstep.calibration.calibrate import calibrate
from fewstep.fingerprint import fingerprint, warn_if_other_model
from fewstep.recipe import Recipe, RecipeBook, Report, load_recipe

__all__ = ["Recipe", "RecipeBook", "Report", "calibrate", "fingerprint", "load_recipe", "warn_if_other_model"]
