"""Noising processes: α, σ, the half log-SNR and their inverses, in float64."""

from fewstep.processes.base import Process
from fewstep.processes.edm import EDM
from fewstep.processes.flow import RectifiedFlow
from fewstep.processes.registry import from_dict, named
from fewstep.processes.vp import VPCosine, VPDiscrete, VPLinear

__all__ = ["EDM", "Process", "RectifiedFlow", "VPCosine", "VPDiscrete", "VPLinear", "from_dict", "named"]
