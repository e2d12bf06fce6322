"""``fewstep tune``: the best recipe of a model within a budget, with a report."""
