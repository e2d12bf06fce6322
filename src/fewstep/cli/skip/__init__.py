"""``fewstep skip``: diagnosis of Skip-Tuning on a model, and the search for ρ."""
