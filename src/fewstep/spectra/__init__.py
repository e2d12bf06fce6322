"""Spectra of data; ``fewstep.spectra.gaussian`` has what plans make of Gaussian data with them."""

from fewstep.spectra.defaults import NAMES, named
from fewstep.spectra.spectrum import Spectrum

__all__ = ["NAMES", "Spectrum", "named"]
