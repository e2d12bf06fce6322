"""Spectra of data, and what plans make of Gaussian data with them."""

from fewstep.spectra.defaults import NAMES, named
from fewstep.spectra.gaussian import (
    Response,
    end_errors,
    exact_gain,
    exact_std,
    interval_errors,
    local_errors,
    response,
)
from fewstep.spectra.nodes import nodes
from fewstep.spectra.spectrum import Spectrum

__all__ = [
    "NAMES",
    "Response",
    "Spectrum",
    "end_errors",
    "exact_gain",
    "exact_std",
    "interval_errors",
    "local_errors",
    "named",
    "nodes",
    "response",
]
