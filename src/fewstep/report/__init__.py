"""Reports as one HTML file that needs nothing else."""

from fewstep.report.entries import METRICS, best
from fewstep.report.page import comparison_page
from fewstep.report.tuning_page import tuning_page

__all__ = ["METRICS", "best", "comparison_page", "tuning_page"]
