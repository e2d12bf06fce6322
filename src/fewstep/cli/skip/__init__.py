"""``fewstep skip``: what scaling the skip connections does to a model, and which ρ is best."""
