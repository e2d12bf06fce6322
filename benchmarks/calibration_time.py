"""What a search with all that calibration fits costs, beside one of the solver's rows and times alone.

    python -W ignore benchmarks/calibration_time.py

On the embedded model, 8 calls, 64 noises, from the quadratic grid: the default search, with formulas of first
predictions and two losses, and one without formulas and with one loss, which is all that the first version did.
Processor time, network calls included; both begin nothing new after as many calls.
"""

from __future__ import annotations

import time
from typing import Any

import figures
from calibration_report import table
from time_steps import MODELS

import fewstep as fs

MODEL, CALLS, NUM = "fashion-mnist", 8, 64
KINDS: dict[str, dict[str, Any]] = {"rows and times": {"analytic": 0, "loss": "square"}, "default": {}}


def main() -> None:
    """Search twice, and write what it cost."""
    model = MODELS[MODEL]()
    grid = fs.grids.quadratic_time(model.process, CALLS, end="zero")
    found = {}
    for name, settings in KINDS.items():
        began = time.process_time()
        report = fs.calibrate(model, fs.UniPC(3), grid, num=NUM, search=True, **settings).report
        assert report is not None
        found[name] = {"seconds": round(time.process_time() - began), "calls": report.calls, "gain": report.gain}
        print(name, found[name], flush=True)
    figures.write("calibration_time", found)


def report() -> str:
    """Return the table."""
    found = figures.read("calibration_time")
    rows = [[name, str(one["seconds"]), f"{one['calls']:,}", f"{one['gain']:.2f}"] for name, one in found.items()]
    return table(["search", "processor seconds", "network calls", "gain on the held-out noises"], rows)


if __name__ == "__main__":
    main()
