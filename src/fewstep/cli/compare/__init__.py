"""``fewstep compare``: solvers × grids × steps on one model."""
