"""The list of solvers for contract tests: every registered one, in each of its forms."""

from __future__ import annotations

import fewstep as fs
from fewstep.executor.fold import foldable

FORMS = {
    "ddim": [fs.DDIM(), fs.DDIM(1.0)],
    "deis": [fs.DEIS(3)],
    "dpmpp": [fs.DPMSolverPP(2), fs.DPMSolverPP(3), fs.DPMSolverPP(3, "published")],
    "sa": [
        fs.SASolver(3, 4, tau=1.0),
        fs.SASolver(2, 2, tau=0.5, few_step=True),
        fs.SASolver(3, 3, tau=fs.tau.window(1.0, 0.05, 1.0), mode="PECE"),
        fs.SASolver(3, 3, tau=0.0, prediction="epsilon"),
    ],
    "unipc": [fs.UniPC(3), fs.UniPC(2, "bh1", corrector=False), fs.UniPC(4, "exact", lower_order_final=False)],
}
"""Where one form of a solver does not speak for all."""

SOLVERS = [form for name in sorted(fs.solvers.NAMES) for form in FORMS.get(name) or [fs.solvers.named(name)]]
FOLDABLE = [solver for solver in SOLVERS if foldable(solver.plan(fs.grids.uniform_time(fs.processes.EDM(), 5)))]
"""Those of one call an interval, which can be stepped from outside."""
SCHEDULED = sorted({type(solver).name for solver in FOLDABLE})
"""Their names."""
