"""Reports as one HTML file that needs nothing else."""

from fewstep.report.entries import best
from fewstep.report.page import comparison_page

__all__ = ["best", "comparison_page"]
