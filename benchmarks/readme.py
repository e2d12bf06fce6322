"""benchmarks/README.md, made of its template and of the figures under results/.

python benchmarks/readme.py

A line ``<!-- table: NAME -->`` of README.template.md is replaced by the report of that benchmark, ``NAME-cuda`` by that
of its figures on a GPU.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import baseline
import bound_trust
import calibration_ablation
import calibration_distance
import calibration_gain
import calibration_report
import calibration_stochastic
import calibration_time
import grid_speed
import guidance
import orders
import pipeline_overhead
import scheduler_step
import skip_overhead
import skip_tau
import skip_tuning
import spectra_further
import spectra_report
import step_overhead
import time_steps
import tune
import undertrained

__all__ = ["README", "rendered"]

FOLDER = Path(__file__).parent
README, TEMPLATE = FOLDER / "README.md", FOLDER / "README.template.md"
TABLE = re.compile(r"^<!-- table: (\S+) -->$", re.MULTILINE)
REPORTS: dict[str, Callable[[], str]] = {
    "baseline-cuda": partial(baseline.report, "cuda"),
    "bound_trust": bound_trust.report,
    "calibration": calibration_report.report,
    "calibration_ablation": calibration_ablation.report,
    "calibration_distance": calibration_distance.report,
    "calibration_gain": calibration_gain.report,
    "calibration_stochastic": calibration_stochastic.report,
    "calibration_time": calibration_time.report,
    "grid_speed": grid_speed.report,
    "guidance": guidance.report,
    "orders": orders.report,
    "scheduler_step": scheduler_step.report,
    "scheduler_step-cuda": partial(scheduler_step.report, "cuda"),
    "pipeline_overhead": pipeline_overhead.report,
    "skip_overhead": skip_overhead.report,
    "skip_tau": skip_tau.report,
    "skip_tuning": skip_tuning.report,
    "step_overhead": step_overhead.report,
    "step_overhead-cuda": partial(step_overhead.report, "cuda"),
    "spectra": spectra_report.report,
    "spectra-further": spectra_further.report,
    "stable-diffusion": spectra_report.stable_diffusion,
    "time_steps": time_steps.report,
    "tune": tune.report,
    "undertrained": undertrained.report,
}
NOTE = "<!-- Made by benchmarks/readme.py from README.template.md and results/: change those. -->\n\n"


def rendered() -> str:
    """Return the page."""
    return NOTE + TABLE.sub(lambda match: REPORTS[match[1]](), TEMPLATE.read_text("utf-8"))


if __name__ == "__main__":
    README.write_text(rendered(), "utf-8")
