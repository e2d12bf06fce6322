"""Skip-Tuning: the skip connections of a UNet, scaled reversibly (arXiv 2402.15170)."""

from fewstep.skip.calls import for_calls
from fewstep.skip.find import find
from fewstep.skip.profile import Profile, load, named
from fewstep.skip.site import Site, Skip
from fewstep.skip.tuned import Tuned, tuned

__all__ = ["Profile", "Site", "Skip", "Tuned", "find", "for_calls", "load", "named", "tuned"]
