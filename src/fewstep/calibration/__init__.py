"""Calibration: a plan's rows, and its times, fitted to one model by least squares over forward calls."""

from fewstep.calibration.calibrated import CalibratedPlan, Report, load_recipe
from fewstep.calibration.fingerprint import fingerprint, warn_if_other_model
from fewstep.calibration.function import calibrate

__all__ = ["CalibratedPlan", "Report", "calibrate", "fingerprint", "load_recipe", "warn_if_other_model"]
