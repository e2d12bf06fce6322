"""fewstep in diffusers: a drop-in scheduler, and one line that puts it into a pipeline."""

from __future__ import annotations

from importlib.util import find_spec

from fewstep.errors import MissingPackageError

if find_spec("diffusers") is None:
    raise MissingPackageError("diffusers is not installed: pip install 'fewstep[diffusers]'.")

# A pipeline is reloaded through this module: diffusers looks for the base class of a component beside it.
from diffusers import SchedulerMixin

from fewstep.integrations.diffusers.diagnosis import Diagnosis, doctor
from fewstep.integrations.diffusers.last_call import Summary
from fewstep.integrations.diffusers.scheduler import FewStepScheduler
from fewstep.integrations.diffusers.switch import disable, enable, summary

__all__ = ["Diagnosis", "FewStepScheduler", "SchedulerMixin", "Summary", "disable", "doctor", "enable", "summary"]
